package parts

import (
	"fmt"
	"io"
	"time"
)

// A progress writes lines about one long task, the first after a second.
type progress struct {
	set  func(what string)
	stop func(err error)
}

// startProgress tells w about the task named what while it runs: first after
// one second, then when the state that set gave changes, at most every five.
// state, if not nil, is asked for more to say. The caller calls stop.
func startProgress(w io.Writer, what string, state func() string) *progress {
	if w == nil {
		w = io.Discard
	}
	begin := time.Now()
	sets, done, quit := make(chan string), make(chan struct{}), make(chan error)
	go func() {
		defer close(done)
		now, said := "", ""
		timer := time.NewTimer(time.Second)
		defer timer.Stop()
		for {
			select {
			case now = <-sets:
			case <-timer.C:
				line := now
				if line == "" && state != nil {
					line = state()
				}
				if line != said || said == "" {
					fmt.Fprintf(w, "%s: %s\n", what, line)
					said = line
				}
				timer.Reset(5 * time.Second)
			case err := <-quit:
				if said != "" && err == nil {
					fmt.Fprintf(w, "%s: ready after %s\n", what, time.Since(begin).Round(time.Second))
				}
				return
			}
		}
	}()
	return &progress{
		set:  func(s string) { sets <- s },
		stop: func(err error) { quit <- err; <-done },
	}
}
