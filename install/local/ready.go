package local

import (
	"context"
	"fmt"
	"slices"

	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// awaitReady waits until a workload is ready, also if it is restarted meanwhile.
func (s *supervisor) awaitReady(ctx context.Context, workload string) error {
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.processes, func(m *managed) bool { return m.workload == workload })
		m := s.processes[i]
		s.mu.Unlock()
		err := m.ready(ctx)
		s.mu.Lock()
		replaced := m.replaced
		s.mu.Unlock()
		if replaced == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-replaced:
		case <-ctx.Done():
		}
	}
}

// ready waits until a process is ready, or says why it will not be. One that has ended
// with code 0 has done its work.
func (m *managed) ready(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	status, err := m.Await(ctx, func(st supervise.Status) bool { return st.State == supervise.Ready || st.State == supervise.Failed })
	select {
	case <-m.ended:
		status, _ = m.Status()
	default:
		if err != nil {
			return fmt.Errorf("wait for %s: %w", status.Name, err)
		}
	}
	if status.State == supervise.Failed || status.ExitCode != 0 && status.State != supervise.Ready {
		return fmt.Errorf("%s ended with code %d: %s", status.Name, status.ExitCode, status.Message)
	}
	return nil
}
