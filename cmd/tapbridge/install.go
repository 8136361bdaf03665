package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tapbridge/tapbridge/pkg/doctor"
)

const installUsage = "usage: tapbridge install [-stay] DIR"

// installMode is the mode of the installed file: any runtime may execute it,
// nobody but root may change it.
const installMode = 0o755

// tempPattern is what os.CreateTemp makes a name of, by digits for the star.
const tempPattern = ".tapbridge-*"

func isTemp(name string) bool {
	digits, is := strings.CutPrefix(name, strings.TrimSuffix(tempPattern, "*"))
	return is && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// install copies the running program into a folder of plugins. With -stay it
// then waits for SIGTERM: a DaemonSet's container must not end, and an image
// with nothing but this program has no other to wait with. It does not remove
// the plugin in the end, because the runtime still needs it to delete pods.
func install(args []string, stdout, stderr io.Writer) int {
	stay := len(args) > 0 && args[0] == "-stay"
	if stay {
		args = args[1:]
	}
	if isHelp(args) {
		fmt.Fprintln(stdout, installUsage)
		return 0
	}
	if len(args) != 1 || args[0] == "" || strings.HasPrefix(args[0], "-") {
		fmt.Fprintln(stderr, installUsage)
		return 2
	}
	end := make(chan os.Signal, 1)
	if stay { // before the work: the kernel gives process 1 of a container no signal that it does not ask for
		signal.Notify(end, unix.SIGTERM, unix.SIGINT)
	}
	if err := installInto(args[0], stdout); err != nil {
		fmt.Fprintf(stderr, "tapbridge: install: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return 1
	}
	if stay {
		<-end
	}
	return 0
}

func installInto(dir string, stdout io.Writer) error {
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer program.Close()
	digest, err := digestOf(program)
	if err != nil {
		return err
	}
	folder, err := lockFolder(dir)
	if err != nil {
		return err
	}
	defer folder.Close() // and with it goes the lock
	path := filepath.Join(dir, "tapbridge")
	if installed(path, digest) {
		fmt.Fprintf(stdout, "%s is version %s already, sha256 %x\n", path, version, digest)
		return nil
	}
	if err := replace(folder, path, program, digest); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s is now version %s, sha256 %x\n", path, version, digest)
	return nil
}

// lockFolder opens the folder, and has it for itself: then a temporary file in it
// is nobody's, since the kernel drops the lock with the process.
func lockFolder(dir string) (*os.File, error) {
	folder, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(folder.Fd()), unix.LOCK_EX)
		if err == nil {
			return folder, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %q: %w", dir, err), folder.Close())
		}
	}
}

// installed reports whether the file at path is the program, and executable. A
// symbolic link is not: it may lead nowhere outside of this container.
func installed(path string, digest []byte) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != installMode {
		return false
	}
	got, err := digestOf(f)
	return err == nil && bytes.Equal(got, digest)
}

// replace puts the program at path in one step: whoever executes that path gets
// the old file or the new one, whole, and what runs already keeps its own.
func replace(folder *os.File, path string, program io.Reader, digest []byte) error {
	if err := removeTemps(folder); err != nil {
		return err
	}
	temp, err := os.CreateTemp(folder.Name(), tempPattern) // O_EXCL
	if err != nil {
		return hint(folder, err)
	}
	err = write(temp, program, digest)
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return folder.Sync() // the name is on the disk only after that of the folder
}

// write copies the program and reads it again. The file is closed in the end: the
// kernel executes none that is open for writing (ETXTBSY).
func write(temp *os.File, program io.Reader, digest []byte) error {
	_, err := io.Copy(temp, program)
	if err == nil {
		err = temp.Chmod(installMode) // whatever the umask is
	}
	if err == nil {
		err = temp.Sync()
	}
	if err == nil {
		err = verify(temp, digest)
	}
	return errors.Join(err, temp.Close())
}

func verify(f *os.File, digest []byte) error {
	got, err := digestOf(f)
	if err == nil && !bytes.Equal(got, digest) {
		err = fmt.Errorf("%q was not written as it was read: its sha256 is %x, want %x", f.Name(), got, digest)
	}
	return err
}

// digestOf reads the whole file, and leaves it at its beginning.
func digestOf(f *os.File) ([]byte, error) {
	h := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	_, err := f.Seek(0, io.SeekStart)
	return h.Sum(nil), err
}

// removeTemps removes what installations have left that were killed.
func removeTemps(folder *os.File) error {
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(folder.Name(), name)
		info, err := os.Lstat(path)
		if !isTemp(name) || err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := os.Remove(path); err != nil {
			return hint(folder, err)
		}
	}
	return nil
}

// hint explains why somebody was not permitted to write. Root without capabilities is a
// user like others, and some packages give the folder away.
func hint(folder *os.File, err error) error {
	var is unix.Stat_t
	if !errors.Is(err, unix.EACCES) || unix.Fstat(int(folder.Fd()), &is) != nil || int(is.Uid) == os.Geteuid() {
		return err
	}
	err = fmt.Errorf("write into %q: %w", folder.Name(), unix.EACCES) // whatever the file's name was to be
	if os.Geteuid() != 0 {
		return doctor.Permitted(err)
	}
	return fmt.Errorf("%w: the folder belongs to user %d, not to 0: chown it, or add the capability DAC_OVERRIDE", err, is.Uid)
}
