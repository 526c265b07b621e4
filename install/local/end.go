package local

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// ErrHurried is the error of a Run that was told to hurry: everything has ended, but
// requests under way were not waited for.
var ErrHurried = errors.New("ended at once: requests under way were cut off")

// end ends everything, the sidecars first, then by stopRest the others.
func (s *supervisor) end(stopRest func()) error {
	var hurried error
	var group sync.WaitGroup
	ended := make(chan struct{})
	group.Go(func() {
		select {
		case <-s.Hurry:
			hurried = ErrHurried
			s.hurry()
		case <-ended:
		}
	})
	s.stopSidecars()
	stopRest()
	s.group.Wait()
	close(ended)
	group.Wait()
	for _, c := range s.outputs {
		_ = c.Close() // of what a full disk did not take the log tells
	}
	return hurried
}

// stopSidecars ends the sidecars, those first that others do not wait for: nobody calls
// what is gone. The control plane lives on meanwhile, they say goodbye to it.
func (s *supervisor) stopSidecars() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	for level := s.Config.depth(); level >= 0; level-- {
		var ending []*managed
		s.mu.Lock()
		for _, m := range s.processes {
			if m.workload != "" && m.level == level {
				ending = append(ending, m)
			}
		}
		s.mu.Unlock()
		for _, m := range ending {
			m.stop()
		}
		for _, m := range ending {
			_, _ = m.Await(ctx, func(st supervise.Status) bool { return st.State == supervise.Stopped || st.State == supervise.Failed })
		}
	}
}

// hurry ends every sidecar and its program at once. The sidecar itself is only asked to:
// it has namespaces to take down.
func (s *supervisor) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.processes {
		if m.workload == "" {
			continue
		}
		m.stop()
		// Another signal than the one that stop sends: two of a kind may arrive as one.
		if process := m.running.Load(); process != nil {
			_ = process.Signal(syscall.SIGINT) // an error means that it has ended
		}
	}
}
