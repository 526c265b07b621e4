package pod

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestFamilies: clusters of one family. The other's addresses are not there to be listened
// on, dialled or captured.
func TestFamilies(t *testing.T) {
	inSandbox(t, func(t *testing.T) {
		for _, f := range []families{only4, only6} {
			t.Run(string(f), func(t *testing.T) {
				w := newWorld(t, f)
				w.startTogether()
				w.traffic()
				w.names()
				w.strangers()
				w.kubelet()
			})
		}
	})
}

// TestRefusedToken: a pod that the control plane does not take says why to who asks whether
// it is ready, and comes up when it has another token.
func TestRefusedToken(t *testing.T) {
	inSandbox(t, func(t *testing.T) {
		w := newWorld(t, only4)
		good, err := os.ReadFile(w.web.token)
		if err == nil {
			err = os.WriteFile(w.web.token, []byte(secret+"-of-somebody"), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.web.start(w.plane)
		await(t, "the refusal is told", func() error {
			if code, why := w.web.kubelet("/ready"); code != 503 || !strings.Contains(why, "no such token") {
				return fmt.Errorf("%d %s", code, why)
			}
			return nil
		})
		started := make(chan error, 1)
		go func() {
			code, body := w.web.startupProbe()
			started <- want(fmt.Sprint(code, " ", body), "200 ready")
		}()
		if err := os.WriteFile(w.web.token, good, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := <-started; err != nil {
			t.Error(err)
		}
		if code := w.web.terminate()(); code != 0 || strings.Contains(w.web.log.String(), secret) {
			t.Errorf("exit code %d, log:\n%s", code, w.web.log.String())
		}
	})
}
