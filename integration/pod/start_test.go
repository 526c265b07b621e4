package pod

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
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

// TestHold: a sidecar whose application a hook holds back does not end by itself when the time
// for that is over, and says what was missing when the kubelet ends it. One that served in
// time has nothing to say.
func TestHold(t *testing.T) {
	inSandbox(t, func(t *testing.T) {
		w := newWorld(t, only4)
		w.plane.set(w.workload(w.api))
		w.api.startWith(w.plane, []string{"--hook=20s"})
		if err := os.WriteFile(w.web.token, []byte(secret+"-of-somebody"), 0o640); err != nil {
			t.Fatal(err)
		}
		w.web.startWith(w.plane, []string{"--hook=1s"})
		w.api.awaitReady()
		if code := w.api.terminate()(); code != 0 || strings.Contains(w.api.log.String(), "was not started") {
			t.Errorf("in time: exit code %d, log:\n%s", code, w.api.log.String())
		}
		time.Sleep(2 * time.Second) // the hold is over for sure
		if code, why := w.web.kubelet("/ready"); code != 503 || !strings.Contains(why, "no such token") {
			t.Errorf("after the hold: %d %s", code, why)
		}
		code, said := w.web.terminate()(), w.web.log.String()
		if code != 1 || !strings.Contains(said, "the application was not started, as the sidecar was not ready in 1s: ") || !strings.Contains(said, "no such token") {
			t.Errorf("exit code %d, log:\n%s", code, said)
		}
	})
}
