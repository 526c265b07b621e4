package supervise_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// TestReadiness scripts what a running process answers, and looks at its state with each
// question: three bad answers in a row make it not ready, one good one ready again.
func TestReadiness(t *testing.T) {
	bad := errors.New("no database")
	type step struct {
		state  supervise.State // when it is asked
		answer error
	}
	script := []step{
		{supervise.Starting, bad}, {supervise.Starting, bad}, {supervise.Starting, bad}, {supervise.Starting, nil},
		{supervise.Ready, bad}, {supervise.Ready, bad}, {supervise.Ready, nil},
		{supervise.Ready, bad}, {supervise.Ready, bad}, {supervise.Ready, bad},
		{supervise.Unready, bad}, {supervise.Unready, nil}, {supervise.Ready, nil},
	}
	ctx, cancel := context.WithCancel(limited(t))
	defer cancel()
	asked := 0
	var p *supervise.Process
	p = supervise.New(supervise.Spec{
		Name: "p", Start: starts("sleep"), Recheck: time.Millisecond,
		Ready: func(context.Context) error {
			if asked == len(script) {
				cancel()
				return nil
			}
			s := script[asked]
			if status, _ := p.Status(); status.State != s.state || s.state == supervise.Unready && status.Message != bad.Error() {
				t.Errorf("question %d: the process is %+v, want %s", asked, status, s.state)
			}
			asked++
			return s.answer
		},
	}, logger(t))
	if _, err := p.Run(ctx); err != nil {
		t.Error(err)
	}
	if asked != len(script) {
		t.Errorf("asked %d times", asked)
	}
}
