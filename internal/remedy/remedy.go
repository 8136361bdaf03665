// Package remedy lets an error carry what to do about it: at the end of its text, where
// nobody else tells, and apart for who does. What to do about errors that carry nothing is
// the business of package doctor.
package remedy

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

type remedied struct {
	error
	remedy string
}

func (r *remedied) Error() string { return r.error.Error() + ": " + r.remedy }

func (r *remedied) Unwrap() error { return r.error }

// With is err with what to do about it.
func With(err error, remedy string) error { return &remedied{err, remedy} }

// Mount is With where err says that the file system at path is read-only, or missing;
// otherwise it is err.
func Mount(err error, path string) error {
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOENT) {
		return With(err, fmt.Sprintf("mount %s writable, in a container the node's: it must be there and writable", path))
	}
	return err
}

// Of is the remedy that err carries; "" where it carries none.
func Of(err error) string {
	var r *remedied
	if errors.As(err, &r) {
		return r.remedy
	}
	return ""
}

// Without is the text of err but for its remedy.
func Without(err error) string {
	text := err.Error()
	if remedy := Of(err); remedy != "" {
		text = strings.Replace(text, ": "+remedy, "", 1)
	}
	return text
}
