package translate

import (
	"fmt"
	"strings"
	"testing"
)

// TestShares counts the zones of proxies and reduces the counts: while their spread is the
// same, nobody is told anything.
func TestShares(t *testing.T) {
	for zones, want := range map[string]string{
		"":            "",
		", ,":         "",
		"a":           "a 1",
		"a,a,a":       "a 1",
		"b,a":         "a 1, b 1",
		"a,b,b,,b,b":  "a 1, b 4",
		"a,a,a,a,b,b": "a 2, b 1",
		"a,a,b,b,b":   "a 2, b 3",
		"c,c,b,b,a,a": "a 1, b 1, c 1",
	} {
		var list []string
		for zone := range strings.SplitSeq(zones, ",") {
			list = append(list, strings.TrimSpace(zone))
		}
		var got []string
		for _, e := range Self(SelfIn{NewShares(list)}).Endpoints {
			got = append(got, fmt.Sprint(e.Locality.Zone, " ", e.LbEndpoints[0].LoadBalancingWeight.Value))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("proxies in %s are spread as %q, want %q", zones, got, want)
		}
	}
}
