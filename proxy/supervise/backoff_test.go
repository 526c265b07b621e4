package supervise

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for n, most := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		most *= time.Millisecond
		if low, high := b.delay(n, 0), b.delay(n, 0.999999); low != most/2 || high > most || high < most*99/100 {
			t.Errorf("restart %d waits %s to %s, want half to all of %s", n, low, high, most)
		}
	}
	if got := b.delay(1<<30, 0); got != time.Second/2 {
		t.Errorf("after many restarts it waits %s", got)
	}
}
