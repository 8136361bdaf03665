package config

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// CheckLists refuses null in the lists of another plugin's result: the library
// decodes it, and panics when it converts the result to another version.
func CheckLists(r types.Result) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var lists struct{ Interfaces, IPs, Routes []*struct{} }
	if err := json.Unmarshal(text, &lists); err != nil {
		return err
	}
	for _, list := range [][]*struct{}{lists.Interfaces, lists.IPs, lists.Routes} {
		for _, item := range list {
			if item == nil {
				return errors.New("the result has null in a list")
			}
		}
	}
	return nil
}

// checkIndexes refuses addresses of interfaces that a result does not have: with
// ours added to it, they would become addresses of ours.
func checkIndexes(r *types100.Result) error {
	for _, ip := range r.IPs {
		if n := ip.Interface; n != nil && (*n < 0 || *n >= len(r.Interfaces)) {
			return fmt.Errorf("address %s is of interface %d, but there are %d", ip.Address.String(), *n, len(r.Interfaces))
		}
	}
	return nil
}
