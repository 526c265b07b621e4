package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Gateway API's Duration (GEP-2257): one to four numbers of at most five digits with
// the units h, m, s and ms; no fraction, no sign.
var (
	durationForm = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)
	durationPart = regexp.MustCompile(`([0-9]+)(h|ms|m|s)`)
)

func parseDuration(s string) (time.Duration, error) {
	if !durationForm.MatchString(s) {
		return 0, fmt.Errorf("%s is not a duration; write whole numbers with h, m, s or ms, such as 1m30s or 500ms", quote(s))
	}
	units := map[string]time.Duration{"h": time.Hour, "m": time.Minute, "s": time.Second, "ms": time.Millisecond}
	var total time.Duration
	for _, part := range durationPart.FindAllStringSubmatch(s, -1) {
		n, _ := strconv.Atoi(part[1]) // at most five digits
		total += time.Duration(n) * units[part[2]]
	}
	return total, nil
}

// duration reads a string that the schema has checked; "" is 0.
func duration(s string) time.Duration {
	d, _ := parseDuration(s)
	return d
}
