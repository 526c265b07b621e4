package supervise

import (
	"context"
	"time"
)

// unreadyAfter is how many answers in a row must be bad for a ready process to be ready no
// more, as in a Kubernetes readiness probe: one may be lost to a busy moment.
const unreadyAfter = 3

// watchReady asks until the process is ready, and from then on as often as the spec says,
// until ctx is done.
func (p *Process) watchReady(ctx context.Context) {
	if p.spec.Ready == nil {
		p.ready()
		return
	}
	failures := 0
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := p.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			p.ready()
		default:
			failures++
			p.unready(err, failures >= unreadyAfter)
		}
		wait := pause
		if status, _ := p.Status(); status.State == Ready || status.State == Unready {
			if wait = p.spec.Recheck; wait == 0 {
				return
			}
		}
		if !p.sleep(ctx, wait) {
			return
		}
	}
}

func (p *Process) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return p.spec.Ready(ctx)
}

func (p *Process) ready() {
	p.set(func(s *Status) {
		if s.State == Starting || s.State == Unready {
			s.State, s.Message = Ready, ""
		}
	})
}

// unready notes why the process is not ready. One that was becomes so when its bad
// answers are enough.
func (p *Process) unready(err error, enough bool) {
	p.set(func(s *Status) {
		if s.State == Ready && enough {
			s.State = Unready
		}
		if s.State == Starting || s.State == Unready {
			s.Message = err.Error()
		}
	})
}
