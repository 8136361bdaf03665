// Command sbom writes the software bill of materials of a Go binary, by what the
// binary says about itself: SPDX 2.3, as JSON. It lives in this module because
// nothing of it is in the plugin.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"time"
)

func main() {
	if err := write(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func write(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want the path of one binary, got %q", args)
	}
	doc, err := describe(args[0])
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	if err == nil {
		_, err = os.Stdout.Write(append(text, '\n'))
	}
	return err
}

// The document is the part of SPDX 2.3 that a list of modules needs.
type document struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []component    `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type component struct {
	ID        string     `json:"SPDXID"`
	Name      string     `json:"name"`
	Version   string     `json:"versionInfo"`
	Location  string     `json:"downloadLocation"`
	Analyzed  bool       `json:"filesAnalyzed"`
	Comment   string     `json:"comment,omitempty"`
	Checksums []checksum `json:"checksums,omitempty"`
	Refs      []external `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type external struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// describe gives the same document for the same binary: its time is the epoch,
// unless the build was given one (reproducible-builds.org, SOURCE_DATE_EPOCH).
func describe(path string) (document, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return document{}, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return document{}, err
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(content))
	name := filepath.Base(path)
	binary := component{ID: "SPDXRef-binary", Name: name, Version: info.Main.Version, Location: "NOASSERTION", Comment: settings(info)}
	binary.Checksums = []checksum{{"SHA256", digest}}
	doc := document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Namespace:     "https://spdx.org/spdxdocs/" + name + "-" + digest,
		Creation:      creation{created(), []string{"Tool: " + info.Main.Path + "/test/sbom"}},
		Packages:      []component{binary},
		Relationships: []relationship{{"SPDXRef-DOCUMENT", "DESCRIBES", binary.ID}},
	}
	doc.contains(binary.ID, debug.Module{Path: "std", Version: info.GoVersion})
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		doc.contains(binary.ID, *m)
	}
	return doc, nil
}

func created() string {
	var seconds int64
	_, _ = fmt.Sscan(os.Getenv("SOURCE_DATE_EPOCH"), &seconds) // absent: the epoch
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

func (d *document) contains(binary string, m debug.Module) {
	c := component{ID: "SPDXRef-" + unfit.ReplaceAllString(m.Path, "-"), Name: m.Path, Version: m.Version, Location: "NOASSERTION"}
	c.Refs = []external{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + m.Version}}
	if m.Sum != "" {
		c.Comment = "go.sum " + m.Sum
	}
	d.Packages = append(d.Packages, c)
	d.Relationships = append(d.Relationships, relationship{binary, "CONTAINS", c.ID})
}

// unfit are the characters that an SPDX identifier cannot have.
var unfit = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func settings(info *debug.BuildInfo) (text string) {
	for _, s := range info.Settings {
		text += s.Key + "=" + s.Value + "\n"
	}
	return text
}
