package config

import "errors"

// What can be wrong with a configuration. Package plugin gives each its CNI
// code.
var (
	ErrDecode      = errors.New("cannot decode the configuration")
	ErrInvalid     = errors.New("invalid network configuration")
	ErrUnsupported = errors.New("unsupported key in the network configuration")
	ErrArgs        = errors.New("invalid CNI_ARGS")
)
