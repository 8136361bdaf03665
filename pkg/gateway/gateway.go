// Package gateway makes the node the router of a bridge's guests: the bridge's
// addresses, forwarding, masquerading. Which addresses those are is decided in
// package config; the order of things, and the lock around them, are those of
// package attach.
package gateway

import (
	"errors"
	"net/netip"
)

var (
	// ErrAddress says that the bridge does not carry the guests' gateway, or that
	// the node may not be made to forward, and that it is not for us to change.
	ErrAddress = errors.New("the node is not the guests' gateway")
	// ErrUnsupported says that the node cannot masquerade.
	ErrUnsupported = errors.New("masquerading is not possible on this node")
)

// Wish is what one attachment needs of the bridge's own stack.
type Wish struct {
	Addresses  []netip.Prefix // that the bridge must carry
	Assign     bool           // it gets them, and the node forwards, if the bridge is ours; otherwise it must have them
	Replace    bool           // addresses of ours that are in the way are removed
	Masquerade []netip.Prefix // the guest's addresses, each with its subnet, which is left alone
}

// Undo is what takes changes back, the last one first.
type Undo []func() error

// Run takes everything back; what fails does not keep the rest.
func (u Undo) Run() (err error) {
	for i := len(u) - 1; i >= 0; i-- {
		err = errors.Join(err, u[i]())
	}
	return err
}

// run takes the changes one after another, and those before a failing one back.
func run(changes ...func() (Undo, error)) (Undo, error) {
	var done Undo
	for _, change := range changes {
		undo, err := change()
		if err != nil {
			return nil, errors.Join(err, done.Run())
		}
		done = append(done, undo...)
	}
	return done, nil
}
