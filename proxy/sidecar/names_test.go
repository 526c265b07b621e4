package sidecar

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/heddle-mesh/heddle/discovery/dns/namepb"
)

// TestDestinations: an answer waits for what leads to virtual addresses, and never for the
// endpoints of a headless service.
func TestDestinations(t *testing.T) {
	ip := func(text string) []byte { return netip.MustParseAddr(text).AsSlice() }
	ports := []*namepb.Port{{Name: "http", Number: 80}, {Name: "grpc", Number: 81}}
	for _, tc := range []struct {
		name string
		host *namepb.Host
		want []string
	}{
		{"virtual addresses", &namepb.Host{VirtualIps: [][]byte{ip("10.96.0.7"), ip("fd00::7")}, Ports: ports},
			[]string{"dst|10.96.0.7:80", "dst|10.96.0.7:81", "dst|[fd00::7]:80", "dst|[fd00::7]:81"}},
		{"headless", &namepb.Host{Headless: true, Ports: ports, Endpoints: []*namepb.Endpoint{{Addresses: [][]byte{ip("10.1.0.1")}, Ports: ports}}}, nil},
		{"an alias", &namepb.Host{ExternalName: "example.com"}, nil},
	} {
		if got := destinations(tc.host); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
