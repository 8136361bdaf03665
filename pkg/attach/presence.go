package attach

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// agents is the name for which an agent that follows guests holds a byte of lockFile,
// in each network namespace another one; no bridge can have it.
const agents = "/agent"

// Presence is an agent's word that it is there.
type Presence struct{ file *os.File }

// AnnounceAgent tells everybody in this network namespace that there is an agent, until
// Close or the end of the process: the kernel drops the lock, however that ends.
// Several agents can tell so.
func AnnounceAgent() (*Presence, error) {
	f, err := openLocks()
	if err != nil {
		return nil, fmt.Errorf("tell that guests are followed: %w", err)
	}
	at, err := offset(agents)
	if err == nil {
		l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: at, Len: 1}
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tell that guests are followed: lock %q: %w", lockFile, err), f.Close())
	}
	return &Presence{f}, nil
}

// Check says when nobody hears of the agent any more, because somebody has moved or removed
// the file. In a container, where the file itself is mounted, its locks exclude nobody
// either: only a new container gets the new one.
func (p *Presence) Check() error {
	if p == nil {
		return nil // it has not been given
	}
	return linked(p.file)
}

// Close takes the word back.
func (p *Presence) Close() error { return p.file.Close() }

// AgentRuns reports whether an agent follows the guests of this network namespace.
func AgentRuns() (bool, error) {
	f, err := os.OpenFile(lockFile, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for an agent: %w", err)
	}
	defer f.Close()
	at, err := offset(agents)
	if err != nil {
		return false, fmt.Errorf("look for an agent: %w", err)
	}
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, fmt.Errorf("look for an agent: lock of %q: %w", lockFile, err)
	}
	return l.Type != unix.F_UNLCK, nil
}
