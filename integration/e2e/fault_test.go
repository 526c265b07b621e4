package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// controlPlaneAway is for how long the control plane is dead.
const controlPlaneAway = time.Minute

// TestControlPlaneDead kills the control plane under load and keeps it dead. Nobody notices,
// not even a sidecar that is restarted meanwhile; when it is back, so are changes.
func TestControlPlaneDead(t *testing.T) {
	t.Parallel()
	inBestMode(t, func(t *testing.T, mode string) {
		p := start(t, mode, shop, shopObjects())
		p.WriteObject("split.yaml", split(100, 0))
		p.AwaitVersion("web-0", "v1")
		p.AwaitVersion("db-0", "v1")
		loads := []*load{p.Load("web-0", "http://api/", 100), p.Load("db-0", "http://api/", 100, "--fresh")}
		p.during(time.Second) // all connections are made
		back := p.holdDown()
		end := time.Now().Add(controlPlaneAway)
		if a := p.MustAsk("web-0", "resolve", "ip4", "db"); !strings.HasPrefix(a.Body, "100.96.") {
			t.Errorf("DNS without a control plane: %+v", a)
		}
		p.WriteObject("split.yaml", split(0, 100)) // for nobody to read, now
		killed := p.Kill("api-v2-0")
		p.Again(killed)
		if status, err := p.Status("api-v2-0"); err != nil || status.ControlPlane {
			t.Errorf("a sidecar started without a control plane says %+v, %v", status, err)
		}
		p.AwaitCode("web-0", "http://api-v2/", 200)
		p.during(time.Until(end))
		back()
		await(t, 30*time.Second, "sidecars are connected again", func() error {
			for _, workload := range []string{"web-0", "db-0", "api-v1-0", "api-v2-0"} {
				if status, err := p.Status(workload); err != nil || !status.ControlPlane {
					return fmt.Errorf("%s: %+v, %v", workload, status, err)
				}
			}
			return nil
		})
		p.AwaitVersion("web-0", "v2")
		p.AwaitVersion("db-0", "v2")
		NoneFailed(loads...)
	})
}

// during lets the mesh run for a while, which is what is tested.
func (p *project) during(d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.t.Context().Done():
	}
}

// holdDown kills the control plane and keeps it from starting again, by the lock on its
// state, until the returned function is called.
func (p *project) holdDown() (release func()) {
	p.t.Helper()
	f, err := os.OpenFile(filepath.Join(p.state, "controlplane", "state.db"), os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	was := p.Kill("controlplane")
	await(p.t, 5*time.Second, "the state's lock is ours", func() error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	await(p.t, 10*time.Second, "the control plane is away", func() error {
		for _, workload := range []string{"web-0", "db-0"} {
			if status, err := p.Status(workload); err != nil || status.ControlPlane {
				return fmt.Errorf("%s: %+v, %v", workload, status, err)
			}
		}
		return nil
	})
	return func() {
		if is, err := p.Process("controlplane"); err != nil || is.State == "ready" || is.PID == was.PID {
			p.t.Errorf("the control plane was not dead: %+v %v", is, err)
		}
		f.Close()
	}
}

// TestKilled kills a proxy, then an agent. What was beside them is no longer there or
// goes on, and traffic recovers.
func TestKilled(t *testing.T) {
	inModes(t, func(t *testing.T, mode string) {
		p := start(t, mode, shop, shopObjects())
		p.WriteObject("split.yaml", split(100, 0))
		p.AwaitVersion("web-0", "v1")

		app, err := p.Process("api-v1-0/app")
		if err != nil {
			t.Fatal(err)
		}
		for _, victim := range []string{"api-v1-0/envoy", "web-0/envoy"} {
			p.Again(p.Kill(victim))
			p.AwaitCode("web-0", "http://api/", 200)
		}
		if is, err := p.Process("api-v1-0/app"); err != nil || is.PID != app.PID || is.State != "ready" {
			t.Errorf("the program was %+v and is %+v, %v", app, is, err)
		}

		for _, victim := range []string{"api-v1-0", "web-0"} {
			var old []process
			for _, child := range []string{"/envoy", "/app"} {
				q, err := p.Process(victim + child)
				if err != nil {
					t.Fatal(err)
				}
				old = append(old, q)
			}
			p.Again(p.Kill(victim))
			p.AwaitCode("web-0", "http://api/", 200)
			for _, q := range old {
				await(t, 5*time.Second, fmt.Sprintf("%s of the dead agent is gone", q.Name), func() error {
					if err := syscall.Kill(q.PID, 0); !errors.Is(err, syscall.ESRCH) {
						return fmt.Errorf("process %d: %v", q.PID, err)
					}
					return nil
				})
			}
		}
	})
}
