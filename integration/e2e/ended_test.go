package e2e

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEnded asks for the logs of a mesh that has ended, from its folder; and starts it
// from a file with a slip of the pen.
func TestEnded(t *testing.T) {
	inBestMode(t, func(t *testing.T, mode string) {
		const text = "services: {talker: {command: [sh, -c, 'echo one last word; exec APP serve']}}\n"
		p := start(t, mode, text, nil)
		if _, err := p.Heddle("down"); err != nil {
			t.Fatal(err)
		}
		p.nothingIsLeft()
		if out, err := p.Heddle("logs", "talker-0"); err != nil || !strings.Contains(out, "one last word") {
			t.Errorf("logs of what has ended: %v\n%s", err, out)
		}
		elsewhere := p.command(p.heddle, "logs", "talker-0")
		elsewhere.Dir = "/"
		if out, err := elsewhere.CombinedOutput(); err == nil || !strings.Contains(string(out), "no project runs") {
			t.Errorf("logs from elsewhere: %v\n%s", err, out)
		}

		p.write(filepath.Join(p.dir, "heddle.yaml"), "name: e\nservices: {talker: {comand: [sh]}}\n")
		out, err := p.Up(0).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), `line 2: unknown field "comand"; did you mean command?`) {
			t.Errorf("heddle up with an unknown field: %v\n%s", err, out)
		}
		p.checkProcesses()
	})
}
