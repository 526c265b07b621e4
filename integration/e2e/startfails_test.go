package e2e

import (
	"strings"
	"testing"
)

// TestStartFails starts a mesh of which a part cannot be started: "up" says why and does
// not wait for it, and the rest goes on until "down".
func TestStartFails(t *testing.T) {
	inBestMode(t, func(t *testing.T, mode string) {
		p := prepare(t, mode, "services: {web: {command: [APP, '${NOPE}']}}", nil)
		out, err := p.Up(0, "--detach", "--wait", "--timeout", "60s").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "there is no ${NOPE}") {
			t.Errorf("heddle up: %v, %s", err, out)
		}
		if q, err := p.Process("controlplane"); err != nil || q.State != "ready" {
			t.Errorf("the control plane: %+v, %v", q, err)
		}
		if q, err := p.Process("supervisor"); err != nil || q.State != "failed" || !strings.Contains(q.Message, "NOPE") {
			t.Errorf("the supervisor: %+v, %v", q, err)
		}
		if out, err := p.Up(0).CombinedOutput(); err == nil || !strings.Contains(string(out), "is running already") {
			t.Errorf("heddle up of what runs in part: %v, %s", err, out)
		}
	})
}
