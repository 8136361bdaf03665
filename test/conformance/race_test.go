//go:build race

package conformance

// Under the race detector the plugin is watched as well: it ends with code 66, and
// a test fails, when it finds something.
func init() { detector = []string{"-race"} }
