package dan

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// largestFile bounds what is read of a file, in bytes.
	largestFile = 1 << 20
	// lockWait bounds the wait for others who write in the folder, lockPause is between two tries.
	lockWait  = 30 * time.Second
	lockPause = 5 * time.Millisecond
)

// errStranger says that what bears the file's name is not a file that we could
// have written.
var errStranger = errors.New("it is not a regular file")

// folder is an open Folder. The lock on it goes when it is closed, or with the
// process.
type folder struct{ *os.File }

// prepare opens and locks the folder, and makes it if it is missing: Kata
// leaves that to whoever writes into it.
func (f Folder) prepare() (folder, error) {
	if err := os.MkdirAll(string(f), 0o755); err != nil {
		return folder{}, err
	}
	dir, err := f.open()
	if err != nil {
		return folder{}, err
	}
	if err := dir.lock(); err != nil {
		return folder{}, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// open follows no symbolic link: whoever can make one there must not choose
// what root writes.
func (f Folder) open() (folder, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, string(f), &how)
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: a symbolic link is on the way", err)
	}
	if err != nil {
		return folder{}, &os.PathError{Op: "open", Path: string(f), Err: err}
	}
	return folder{os.NewFile(uintptr(fd), string(f))}, nil
}

// lock keeps two ADDs for one sandbox from losing one another's device.
// unix.EAGAIN when another holds it for too long.
func (d folder) lock() error {
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockPause) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline):
			return fmt.Errorf("lock %s: %w", d.Name(), err)
		}
	}
}

func name(sandbox string) string { return sandbox + ".json" }

// draft is the name of a file that is being written: there is one writer at a
// time.
func draft(sandbox string) string { return "." + sandbox + ".tapbridge" }

func (d folder) path(sandbox string) string { return filepath.Join(d.Name(), name(sandbox)) }

// read is fs.ErrNotExist when there is no file, errStranger when it is
// something else.
func (d folder) read(sandbox string) ([]byte, error) {
	fd, err := unix.Openat(int(d.Fd()), name(sandbox), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENAMETOOLONG):
		err = unix.ENOENT // no file can have that name
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO):
		err = errStranger
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), d.path(sandbox))
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errStranger)
	}
	return io.ReadAll(io.LimitReader(file, largestFile))
}

// replace puts a whole new file in the old one's place: whoever reads meets
// either.
func (d folder) replace(sandbox string, content []byte) error {
	err := d.tidy(sandbox)
	if err == nil {
		err = d.write(draft(sandbox), content)
	}
	if err == nil {
		err = unix.Renameat(int(d.Fd()), draft(sandbox), int(d.Fd()), name(sandbox))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", d.path(sandbox), err), d.tidy(sandbox))
	}
	return nil
}

// write makes a file for root alone, as whom the runtime reads it.
func (d folder) write(name string, content []byte) error {
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func (d folder) remove(sandbox string) error { return d.unlink(name(sandbox)) }

// tidy removes what a writer that was killed has left.
func (d folder) tidy(sandbox string) error { return d.unlink(draft(sandbox)) }

func (d folder) unlink(name string) error {
	err := unix.Unlinkat(int(d.Fd()), name, 0)
	if errors.Is(err, unix.EROFS) { // also of a name that is not there (fs/namei.c, do_unlinkat)
		if missing := unix.Fstatat(int(d.Fd()), name, new(unix.Stat_t), unix.AT_SYMLINK_NOFOLLOW); missing != nil {
			err = missing
		}
	}
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG) {
		return nil
	}
	return &os.PathError{Op: "remove", Path: filepath.Join(d.Name(), name), Err: err}
}
