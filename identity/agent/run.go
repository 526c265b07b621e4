package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	// A pod that has no SVID yet, or none any more, serves nothing until it has one; its
	// token lasts, and it asks again soon.
	lastPodRetry = 10 * time.Second
	minPause     = 500 * time.Millisecond // between two renewals, whatever a certificate says
	callTime     = 15 * time.Second       // for one attempt, the connection included
)

// Run keeps the SVID fresh until ctx ends; it always returns nil then. One that was
// loaded from disk is renewed at once, since the control plane may be another by now.
func (a *Agent) Run(ctx context.Context) error {
	failures, pause := 0, time.Duration(0)
	for a.wait(ctx, pause) {
		next, err := a.obtain(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			failures++
			pause = retryAfter(failures)
			if _, err := a.GetX509SVID(); err != nil && a.config.TokenFile != "" {
				pause = min(pause, jitter(lastPodRetry, 0.2))
			}
			a.setStatus(func(s *Status) { s.LastError, s.Failures = err.Error(), failures })
			a.config.Log.Warn("no new SVID", "id", a.config.ID, "error", err, "attempts", failures, "retry_in", pause.Round(time.Millisecond).String())
			continue
		}
		failures = 0
		a.adopt(next)
		pause = renewAfter(time.Until(next.expires()))
	}
	return nil
}

// wait returns true after pause or when somebody asks for a renewal, false when ctx ends.
func (a *Agent) wait(ctx context.Context, pause time.Duration) bool {
	a.setStatus(func(s *Status) { s.RenewAt = time.Now().Add(pause) })
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.poke:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// adopt makes next what everybody sees, then stores it. A full disk must not cost a
// workload its identity, so the order is this and an error is only told.
func (a *Agent) adopt(next *credentials) {
	first := a.current.Load() == nil
	a.updated.Change(func() {
		a.setStatus(func(s *Status) { *s = Status{ID: s.ID, Expires: next.expires(), DiskError: s.DiskError} })
		a.current.Store(next)
	})
	a.keep(next)
	level := a.config.Log.Debug
	if first {
		level = a.config.Log.Info
	}
	level("got an SVID", "id", a.config.ID, "expires", next.expires())
}

// keep stores next for restarts. A disk that stays full is told of once, and once more
// when it has space again: renewals of short-lived SVIDs would fill the log as well.
func (a *Agent) keep(next *credentials) {
	err, before := a.store(next), a.Status().DiskError
	switch {
	case err != nil && before == "":
		a.config.Log.Warn("SVID not stored: a restart needs the control plane", "id", a.config.ID, "error", err)
	case err == nil && before != "":
		a.config.Log.Info("SVID stored again", "id", a.config.ID)
	}
	after := ""
	if err != nil {
		after = err.Error()
	}
	a.setStatus(func(s *Status) { s.DiskError = after })
}

// renewAfter is half of the life that is left, give or take a tenth of it, so that
// workloads that started together do not renew together.
func renewAfter(left time.Duration) time.Duration {
	return max(minPause, jitter(left/2, 0.2))
}

// retryAfter doubles from a second to a minute, give or take a fifth.
func retryAfter(failures int) time.Duration {
	pause := lastRetry
	if failures <= 6 {
		pause = firstRetry << (failures - 1)
	}
	return jitter(pause, 0.2)
}

// jitter is d changed by up to the given part of it, either way.
func jitter(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 + part*(2*rand.Float64()-1)))
}
