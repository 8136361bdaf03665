// Package pages reads what the manual shows in code blocks: README.md and docs/*.md.
//
// It is for tests, which hold those blocks to the code: configurations are read by package config, manifests by test/deploy and the
// API server of test/e2e, commands are run by test/manual.
package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Block is one code block.
type Block struct {
	Page     string // its path below the root
	Line     int    // of its first line
	Language string // "" for what a command prints
	Mark     string // a word after the language: what is to be done with it
	Text     string
}

// String says where it is.
func (b Block) String() string { return fmt.Sprintf("%s:%d", b.Page, b.Line) }

// Blocks are those of all pages, in order. The root is that of the source tree.
func Blocks(root string) (all []Block, err error) {
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	for _, path := range append([]string{filepath.Join(root, "README.md")}, docs...) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		page, err := filepath.Rel(root, path)
		if err != nil {
			return nil, err
		}
		blocks, err := parse(page, string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, blocks...)
	}
	return all, nil
}

const fence = "```"

// parse knows fences at the beginning of a line: the manual has no others.
func parse(page, text string) (blocks []Block, err error) {
	var open *Block
	number := 0
	for line := range strings.Lines(text) {
		number++
		info, is := strings.CutPrefix(line, fence)
		switch {
		case is && open == nil:
			language, mark, _ := strings.Cut(strings.TrimSpace(info), " ")
			open = &Block{Page: page, Line: number + 1, Language: language, Mark: mark}
		case is:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.Text += line
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the code block does not end", open)
	}
	return blocks, nil
}
