// Package shell writes names into commands that an operator is told to paste. A pod or a
// tenant chooses some of them, and the kernel takes "$(id)" as the name of a device.
package shell

import "strings"

// plain are the letters that a shell takes as they are, wherever they stand in a word.
const plain = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_./:@%+-"

// Word is text as one word of a POSIX shell, in quotes only where it needs them.
func Word(text string) string {
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
