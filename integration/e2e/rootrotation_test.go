package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// TestRootRotation replaces the root of a mesh, by one command, under loads whose callers and
// handshakes verify both ends. A control plane that is killed afterwards goes on with it.
func TestRootRotation(t *testing.T) {
	t.Parallel()
	inBestMode(t, func(t *testing.T, mode string) {
		p := start(t, mode, "svidTTL: 20s\n"+shop, shopObjects())
		loads := []*load{p.Load("web-0", "http://api/", 100), p.Load("db-0", "http://api/", 50, "--fresh")}
		direct, proxied := p.Handshakes("web-0", "api-v1-0", 8080, 20), p.Connects("web-0", "db:3306", 20)
		before := p.roots()
		if len(before) != 1 || before[0].Role != "signing" {
			t.Fatalf("before: %+v", before)
		}
		if out, err := p.Heddle("ca", "rotate"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		both := p.roots()
		if len(both) != 2 || both[0].Fingerprint != before[0].Fingerprint || both[1].Role != "prepared" {
			t.Fatalf("after heddle ca rotate: %+v", both)
		}
		await(t, time.Minute, "the new root signs", func() error {
			now := p.roots()
			if len(now) == 2 && now[0].Fingerprint == both[1].Fingerprint && now[0].Role == "signing" && now[1].Fingerprint == both[0].Fingerprint && now[1].Role == "former" {
				return nil
			}
			return fmt.Errorf("roots: %+v", now)
		})
		p.awaitRotations(2) // no SVID of the former root is left
		NoneFailed(loads...)
		direct.AllMade()
		proxied.AllMade()
		p.checkHandshakes("web-0", "db-0", "api-v1-0", "api-v2-0")

		p.Again(p.Kill("controlplane")) // the files of the rotation are read anew
		if now := p.roots(); len(now) != 2 || now[0].Fingerprint != both[1].Fingerprint {
			t.Errorf("after a restart of the control plane: %+v", now)
		}
	})
}

// rootShown is what heddle ca show says of a root.
type rootShown struct{ Fingerprint, Role string }

func (p *project) roots() []rootShown {
	p.t.Helper()
	text, err := p.Heddle("ca", "show", "-o", "json")
	var list struct{ Items []rootShown }
	if err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	if err != nil {
		p.t.Fatalf("heddle ca show: %v: %s", err, text)
	}
	return list.Items
}
