package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// summary is what a load was answered.
type summary struct {
	OK, Failed int
	Failures   map[string]int
	Times      []string // of the failed ones
	Versions   map[string]int
	By         map[string]int // workloads that answered
	Worst      float64        `json:"worst_ms"`
}

// load is a client that asks all the time.
type load struct {
	t           *testing.T
	name        string
	cmd         *exec.Cmd
	stop        io.Closer
	out, stderr bytes.Buffer
}

// Load starts a constant load from a workload, of so many requests a second.
func (p *project) Load(workload, url string, rate int, flags ...string) *load {
	p.t.Helper()
	args := append([]string{"exec", workload, "--", p.app, "load", "--url", url, "--rate", strconv.Itoa(rate)}, flags...)
	l := &load{t: p.t, name: workload, cmd: p.command(p.heddle, args...)}
	// A pipe of the system's: "heddle exec" hands the descriptor on.
	in, err := l.cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	l.stop = in
	l.cmd.Stdout, l.cmd.Stderr = &l.out, &l.stderr
	if err := l.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return l
}

// Wait waits for the end of a load that has one, and tells what came of it.
func (l *load) Wait() summary {
	l.t.Helper()
	var s summary
	if err := l.cmd.Wait(); err != nil {
		l.t.Fatalf("load from %s: %v\n%s", l.name, err, l.stderr.String())
	}
	if err := json.Unmarshal(l.out.Bytes(), &s); err != nil {
		l.t.Fatalf("load from %s: %v\n%s", l.name, err, l.out.String())
	}
	return s
}

// Stop ends a load and tells what came of it.
func (l *load) Stop() summary {
	l.t.Helper()
	l.stop.Close()
	return l.Wait()
}

// NoneFailed ends loads and fails the test if one of their requests failed.
func NoneFailed(loads ...*load) {
	for _, l := range loads {
		l.t.Helper()
		s := l.Stop()
		l.t.Logf("load from %s: %d answered, %d failed, the slowest in %.0f ms, by version %v", l.name, s.OK, s.Failed, s.Worst, s.Versions)
		if s.Failed > 0 || s.OK == 0 {
			l.t.Errorf("load from %s: %d requests failed, sent at %v: %v", l.name, s.Failed, s.Times, s.Failures)
		}
	}
}

// AwaitVersion waits until all of a workload's requests to api reach one version of it.
func (p *project) AwaitVersion(workload, version string) {
	p.t.Helper()
	const n = 20
	await(p.t, 20*time.Second, "all requests reach "+version, func() error {
		if s := p.Load(workload, "http://api/", 1000, "--count", strconv.Itoa(n)).Wait(); s.Versions[version] < n {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}
