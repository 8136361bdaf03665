package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tapbridge/tapbridge/pkg/config"
)

func TestAddressing(t *testing.T) {
	for result, want := range map[string]string{
		`{}`: "[] [] gateways invalid IP, invalid IP",
		`{"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"},{"address":"10.1.0.2/16","gateway":"10.1.0.1"},{"address":"fd00::2/64","gateway":"fd00::1"}]}`: "[10.0.0.2/24 10.1.0.2/16 fd00::2/64] [] gateways 10.0.0.1, fd00::1",
		`{"ips":[{"address":"10.0.0.2/32"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0","gw":"fd00::1","table":7}]}`:                                           "[10.0.0.2/32] [0.0.0.0/0 ::/0 via fd00::1 table 7] gateways invalid IP, invalid IP",
		`{"ips":[{"address":"::ffff:10.0.0.2/120","gateway":"::ffff:10.0.0.1"}]}`:                                                                              "[10.0.0.2/24] [] gateways 10.0.0.1, invalid IP",
		`{"ips":[{"address":"::ffff:10.0.0.2/64"}]}`:                                                                                                           "is no address",
		`{"ips":[{}]}`:                             "is no address",
		`{"routes":[{"gw":"10.0.0.1"}]}`:           "is no network",
		`{"routes":[{"dst":"::ffff:0.0.0.0/64"}]}`: "is no network",
	} {
		var r types100.Result
		if err := json.Unmarshal([]byte(result), &r); err != nil {
			t.Fatal(err)
		}
		w, err := config.Addressing(r.IPs, r.Routes)
		if err != nil {
			if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", result, err, want)
			}
			continue
		}
		if got := fmt.Sprintf("%v %v gateways %v, %v", w.Addresses, w.Routes, w.Gateway4, w.Gateway6); got != want {
			t.Errorf("%s:\n%s, want\n%s", result, got, want)
		}
	}
}
