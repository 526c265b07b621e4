package e2e

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/heddle-mesh/heddle/proxy/capture"
)

// TestControlPlanePortInUse has somebody else on the control plane's port.
func TestControlPlanePortInUse(t *testing.T) {
	needMesh(t)
	modes := []string{explicit}
	if capture.MachineRoot() {
		modes = append(modes, transparent, explicitPlain)
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			const address = "127.0.0.1:15010"
			p := prepare(t, mode, uncaptured, shopObjects())
			place := p.Place()
			p.refused(place, p.Occupy(place, address), address, "another project's ends with 'heddle down -p NAME'")
		})
	}
}

// TestPublishedPortInUse has somebody else on a port that a service is to be published on.
func TestPublishedPortInUse(t *testing.T) {
	inModes(t, func(t *testing.T, mode string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		address := l.Addr().String()
		p := prepare(t, mode, fmt.Sprintf("services: {web: {ports: [8080], publish: [%q], command: [APP, serve, --http, ':8080']}}\n",
			address+":8080"), nil)
		const fix = "or publish another port: services.web.publish in heddle.yaml"
		if credential(mode) != nil { // the holder is root's, whose processes the user does not see
			if out, err := p.Up(0).CombinedOutput(); err == nil || !strings.Contains(string(out), address+" is in use by a process of user root") {
				t.Errorf("heddle up where another user has the port: %v\n%s", err, out)
			}
		}
		l.Close()
		place := p.Place()
		p.refused(place, p.Occupy(place, address), address, fix)
	})
}

// refused tries to start the mesh where a process has the address, in the foreground and
// detached: the message says so, and nothing runs.
func (p *project) refused(place, holder int, address, fix string) {
	p.t.Helper()
	want := fmt.Sprintf("%s is in use by %s serve (pid %d): stop it", address, p.app, holder)
	for _, flags := range [][]string{nil, {"--detach"}} {
		out, err := p.Up(place, flags...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			p.t.Errorf("heddle up %v: %v, want exit code 1", flags, err)
		}
		for _, want := range []string{want, fix} {
			if !strings.Contains(string(out), want) {
				p.t.Errorf("heddle up %v says not %q but\n%s", flags, want, out)
			}
		}
		p.checkProcesses(place, holder)
		if logs, _ := filepath.Glob(filepath.Join(p.state, "logs", "*")); len(logs) > 0 {
			p.t.Errorf("something was started: %v", logs)
		}
	}
}
