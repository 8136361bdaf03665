// Package e2e runs the built plugin where it is really used: called by containerd, CRI-O, kubelet and Multus, in pods in which QEMU
// opens the tap and Linux boots behind it. What needs no such caller is tested by package conformance, which plays back the habits
// of these callers; package tools gets the software.
//
// Each test has a machine of its own to throw away (box), so that nothing it starts or makes can outlive it or be seen by others.
package e2e

import (
	"context"
	"log"
	"os"
	"testing"

	"github.com/tapbridge/tapbridge/test/e2e/tools"
)

var tool tools.Tools

func TestMain(m *testing.M) {
	log.SetFlags(log.Ltime)
	if os.Geteuid() != 0 {
		log.Fatal("a machine to throw away is made of namespaces, and that needs root: nothing can be tested")
	}
	os.Exit(getToolsAndRun(m))
}

func getToolsAndRun(m *testing.M) int {
	var err error
	if tool, err = tools.Get(context.Background(), ".", log.Printf); err != nil {
		log.Print(err)
		return 1
	}
	code := m.Run()
	if left := remains(mark, ""); len(left) > 0 {
		log.Printf("FAIL: this remains on the machine: %q", left)
		return 1
	}
	return code
}
