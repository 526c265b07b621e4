package relay

import (
	"math/rand/v2"
	"time"
)

const (
	retryMin = 250 * time.Millisecond
	retryMax = 15 * time.Second
)

// backoff is how long to wait before the next attempt: twice as long each time, and
// between half of it and all of it at random, so that 1,000 agents do not come at once.
// The zero value is ready.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, retryMin), retryMax)
	return b.last/2 + rand.N(b.last/2)
}

func (b *backoff) reset() { b.last = 0 }
