package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// counts are the calls of some time.
type counts struct {
	ok, failed int
	versions   map[string]int  // calls by the version that answered, at most maxVersions
	latencies  []time.Duration // of those that were ok; in the total, see histogram
	reason     string          // of the latest failure
}

// maxVersions bounds what others can make us remember.
const maxVersions = 8

func (c *counts) add(version string, err error) {
	if err != nil {
		c.failed++
		c.reason = err.Error()
		return
	}
	c.ok++
	if c.versions == nil {
		c.versions = map[string]int{}
	}
	if _, known := c.versions[version]; version != "" && (known || len(c.versions) < maxVersions) {
		c.versions[version]++
	}
}

// String is a line for people and for scripts: "ok=50 failed=0 p50=3ms p99=9ms".
func (c counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ok=%d failed=%d", c.ok, c.failed)
	if n := len(c.latencies); n > 0 {
		slices.Sort(c.latencies)
		fmt.Fprintf(&b, " p50=%s p99=%s", c.latencies[n/2].Round(10*time.Microsecond), c.latencies[n*99/100].Round(10*time.Microsecond))
	}
	if c.reason != "" {
		fmt.Fprintf(&b, " last failure: %q", c.reason)
	}
	return b.String()
}

// A histogram keeps latencies of any number of calls in buckets, each 5 % wide: bucket i
// is up to 10 µs times 1.05 to the power of i.
type histogram [320]int

func (h *histogram) add(d time.Duration) {
	i := math.Ceil(math.Log(float64(d)/float64(10*time.Microsecond)) / math.Log(1.05))
	h[int(min(max(i, 0), float64(len(h)-1)))]++
}

// quantile is the upper end of the bucket in which the share q of the calls ends.
func (h *histogram) quantile(q float64) time.Duration {
	total, sum := 0, 0
	for _, n := range h {
		total += n
	}
	for i, n := range h {
		if sum += n; n > 0 && float64(sum) >= q*float64(total) {
			return time.Duration(float64(10*time.Microsecond) * math.Pow(1.05, float64(i)))
		}
	}
	return 0
}

// summary is what --json writes.
type summary struct {
	OK          int            `json:"ok"`
	Failed      int            `json:"failed"`
	P50         float64        `json:"p50Milliseconds"`
	P99         float64        `json:"p99Milliseconds"`
	Versions    map[string]int `json:"versions"`
	LastFailure string         `json:"lastFailure,omitempty"`
}
