package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/proxy/sidecar"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// Process is one line of "heddle ps".
type Process struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"` // supervisor, controlplane, jaeger, sidecar, envoy or app
	PID      int       `json:"pid"`
	State    string    `json:"state"`
	Workload string    `json:"workload,omitempty"`
	Restarts int       `json:"restarts"`
	ExitCode int       `json:"exitCode"`
	Since    time.Time `json:"since"`
	Message  string    `json:"message,omitempty"`
	Address  string    `json:"address,omitempty"` // of a workload
}

// Processes is what the supervisor answers.
type Processes struct {
	Items   []Process `json:"items"`
	Capture string    `json:"capture"`
}

// serveControl answers ps, restart, down and exec until the returned function is called.
func (s *supervisor) serveControl(ctx context.Context, down func()) (stop func(), err error) {
	l, err := channel.ListenUnix(s.Project.path("supervisor.sock"))
	if err != nil {
		return nil, err
	}
	e, err := channel.ListenUnix(s.Project.path("exec.sock"))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ps", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.ps(r.Context()))
	})
	mux.HandleFunc("POST /restart", s.serveRestart)
	mux.HandleFunc("POST /down", func(http.ResponseWriter, *http.Request) { down() })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(l) }) // says only that it was closed
	group.Go(func() { s.serveExec(ctx, e) })
	return func() {
		server.Close()
		e.Close()
		group.Wait()
	}, nil
}

const supervisorKind = "supervisor"

// ps lists every process: ours and what the sidecars say of theirs.
func (s *supervisor) ps(ctx context.Context) Processes {
	s.mu.Lock()
	processes := slices.Clone(s.processes)
	self := Process{Name: supervisorKind, Kind: supervisorKind, PID: os.Getpid(), State: string(supervise.Ready), Since: s.began}
	if s.failure != nil {
		self.State, self.Message = string(supervise.Failed), s.failure.Error()
	}
	if s.ending {
		self.State = string(supervise.Draining)
	}
	s.mu.Unlock()
	answers := s.askSidecars(ctx, processes)
	out := Processes{Capture: s.Capture.String(), Items: []Process{self}}
	for i, m := range processes {
		status, _ := m.Status()
		line := describe(status, m.kind, m.workload)
		if m.status == "" || status.PID == 0 {
			out.Items = append(out.Items, line)
			continue
		}
		inner := answers[i]
		if inner != nil && len(inner.Addresses) > 0 {
			line.Address = inner.Addresses[0]
		}
		out.Items = append(out.Items, line)
		if inner != nil {
			inner.Envoy.Name, inner.App.Name = m.workload+"/envoy", m.workload+"/app"
			out.Items = append(out.Items, describe(inner.Envoy, "envoy", m.workload), describe(inner.App, "app", m.workload))
		}
	}
	return out
}

// askSidecars asks all sidecars at once; one that does not answer soon has no answer.
func (s *supervisor) askSidecars(ctx context.Context, processes []*managed) []*sidecar.Status {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	answers := make([]*sidecar.Status, len(processes))
	var group sync.WaitGroup
	for i, m := range processes {
		if status, _ := m.Status(); m.status == "" || status.PID == 0 {
			continue
		}
		group.Go(func() {
			if answer, err := sidecarStatus(ctx, m.status); err == nil {
				answers[i] = answer
			}
		})
	}
	group.Wait()
	return answers
}

func describe(st supervise.Status, kind, workload string) Process {
	return Process{
		Name: st.Name, Kind: kind, PID: st.PID, State: string(st.State), Workload: workload,
		Restarts: st.Restarts, ExitCode: st.ExitCode, Since: st.Since, Message: st.Message,
	}
}

// PS asks a project's supervisor for its processes. Of a project that does not run there
// are none.
func PS(ctx context.Context, p Project) (Processes, error) {
	if !p.Running() {
		return Processes{Items: []Process{}}, nil
	}
	req, err := newRequest(ctx, "GET", "/ps", nil)
	if err != nil {
		return Processes{}, err
	}
	resp, err := unixClient(p.path("supervisor.sock")).Do(req)
	if err != nil {
		return Processes{}, fmt.Errorf("ask the supervisor of %s: %w", p.Name, err)
	}
	defer resp.Body.Close()
	var out Processes
	return out, json.NewDecoder(resp.Body).Decode(&out)
}

// Down ends a project and waits for its end; one that does not run is no error.
func Down(ctx context.Context, p Project) error {
	if !p.Running() {
		return p.awaitEnd(ctx) // the supervisor may have been killed a moment ago
	}
	req, err := newRequest(ctx, "POST", "/down", nil)
	if err != nil {
		return err
	}
	resp, err := unixClient(p.path("supervisor.sock")).Do(req)
	if err != nil {
		return fmt.Errorf("ask the supervisor of %s to end: %w", p.Name, err)
	}
	resp.Body.Close()
	return p.awaitEnd(ctx)
}

// awaitEnd waits for the end of what is ending.
func (p Project) awaitEnd(ctx context.Context) error {
	for p.Running() || p.locked() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("project %s does not end: %w", p.Name, context.Cause(ctx))
		}
	}
	return nil
}

func newRequest(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, "http://heddle"+path, body)
}

// freePort finds a port that is free now.
func freePort() (uint16, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

// unixClient talks HTTP to a Unix socket.
func unixClient(path string) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
}
