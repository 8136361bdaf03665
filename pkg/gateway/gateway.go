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

// Undo is what takes changes back, the last one first. Each is in it before it is
// made: a change that fails may have been made all the same, and one that panics
// returns nothing.
type Undo []func() error

// Run takes everything back; what fails, or panics, does not keep the rest.
func (u *Undo) Run() (err error) {
	for _, back := range *u {
		defer func() { err = errors.Join(err, back()) }()
	}
	return nil
}

func (u *Undo) will(back func() error) { *u = append(*u, back) }
