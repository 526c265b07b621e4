package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// errEnding is the answer to who wants something started while everything is stopped.
var errEnding = errors.New("the project is ending")

// restart stops the workloads of a name, which is a workload's or that of all of a
// service, and starts each again, one after the other: the next is touched when the one
// before it is ready, so that a service of several is never without. It returns the names
// of those that are ready again.
func (s *supervisor) restart(ctx context.Context, name string) (done []string, err error) {
	s.restarting.Lock() // one at a time is meant
	defer s.restarting.Unlock()
	var names []string
	for _, w := range s.workloads {
		if w.Name == name || w.Entry == name {
			names = append(names, w.Name)
		}
	}
	if len(names) == 0 {
		var known []string
		for _, w := range s.workloads {
			known = append(known, w.Name)
		}
		return nil, fmt.Errorf("there is no workload or service %q; there are the workloads %q", name, known)
	}
	for _, workload := range names {
		if err := s.restartOne(ctx, workload); err != nil {
			return done, fmt.Errorf("restart %s: %w", workload, err)
		}
		done = append(done, workload)
	}
	return done, nil
}

func (s *supervisor) restartOne(ctx context.Context, workload string) error {
	s.mu.Lock()
	i := slices.IndexFunc(s.processes, func(m *managed) bool { return m.workload == workload })
	if i < 0 {
		s.mu.Unlock()
		return errors.New("it has not been started yet")
	}
	old := s.processes[i]
	old.replaced = make(chan struct{})
	s.mu.Unlock()
	defer close(old.replaced)
	old.stop()
	// Whoever asked may be gone; what was stopped is started all the same.
	if _, err := old.Await(context.WithoutCancel(ctx), func(st supervise.Status) bool { return st.State == supervise.Stopped || st.State == supervise.Failed }); err != nil {
		return err
	}
	life, stop := context.WithCancel(context.Background())
	next := &managed{kind: old.kind, workload: old.workload, status: old.status, level: old.level, stop: stop}
	if err := s.launch(life, next, old.spec); err != nil {
		stop()
		return err
	}
	return next.ready(ctx)
}

// serveRestart answers POST /restart?name=NAME with what is ready again, a line each.
func (s *supervisor) serveRestart(w http.ResponseWriter, r *http.Request) {
	done, err := s.restart(r.Context(), r.URL.Query().Get("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	for _, name := range done {
		fmt.Fprintln(w, name)
	}
}

// Restart stops and starts the workloads of a name again, see "heddle restart". It
// returns the names of those that are ready again, a line each.
func Restart(ctx context.Context, p Project, name string) (string, error) {
	req, err := newRequest(ctx, "POST", "/restart?name="+url.QueryEscape(name), nil)
	if err != nil {
		return "", err
	}
	client := unixClient(p.path("supervisor.sock"))
	client.Timeout = 0 // ctx has it
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the supervisor of %s: %w", p.Name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s", slices.Clip(body)[:max(len(body)-1, 0)])
	}
	return string(body), nil
}
