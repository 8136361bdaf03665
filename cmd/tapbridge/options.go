package main

import (
	"fmt"
	"io"

	"github.com/tapbridge/tapbridge/pkg/config"
)

// options explains the keys of the configuration.
func options(w io.Writer) int {
	for _, k := range config.Keys {
		fmt.Fprintf(w, "%s (%s; default: %s)\n    %s\n", k.Name, k.Type, k.Default, k.Effect)
	}
	return 0
}
