package main

import (
	"fmt"
	"io"

	"github.com/tapbridge/tapbridge/pkg/config"
)

// options explains the keys of the configuration.
func options(w io.Writer) int {
	for _, k := range config.Keys {
		given := "default: " + k.Default
		if k.Default == "required" {
			given = k.Default
		}
		fmt.Fprintf(w, "%s (%s; %s)\n    %s\n", k.Name, k.Type, given, k.Effect)
	}
	return 0
}
