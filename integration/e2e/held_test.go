package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// held is one connection from a workload that stays.
type held struct {
	t      *testing.T
	in     io.WriteCloser
	out    *bufio.Scanner
	stderr bytes.Buffer
}

// Hold connects: "http", URL or "tcp", ADDRESS:PORT. The test's end closes.
func (p *project) Hold(workload string, args ...string) *held {
	p.t.Helper()
	cmd := p.command(p.heddle, append([]string{"exec", workload, "--", p.app, "hold"}, args...)...)
	h := &held{t: p.t}
	cmd.Stderr = &h.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	h.in, h.out = in, bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { h.close(cmd) })
	return h
}

func (h *held) close(cmd *exec.Cmd) {
	h.in.Close()
	if err := cmd.Wait(); err != nil {
		h.t.Errorf("a held connection: %v\n%s", err, h.stderr.String())
	}
}

// Say says something over the connection and gives what came back.
func (h *held) Say(what string) answer {
	h.t.Helper()
	if _, err := fmt.Fprintln(h.in, what); err != nil {
		h.t.Fatalf("a held connection: %v\n%s", err, h.stderr.String())
	}
	var a answer
	if !h.out.Scan() {
		h.t.Fatalf("a held connection ended\n%s", h.stderr.String())
	}
	if err := json.Unmarshal(h.out.Bytes(), &a); err != nil {
		h.t.Fatalf("%s: %v", h.out.Text(), err)
	}
	return a
}

// heldConnections: a policy holds at the next request on a connection that exists, and
// neither that nor the mesh's settings touch a listener that carries raw TCP.
func heldConnections(p *project) {
	raw, http := p.Hold("web-0", "tcp", "db:3306"), p.Hold("web-0", "http", "http://api-v1/held")
	if a := raw.Say("one"); a.Body != "one" {
		p.t.Fatalf("a raw connection: %+v", a)
	}
	decode(p.t, http.Say(""))
	before := p.listeners("web-0", "outbound") + p.listeners("db-0", "inbound") + p.listeners("api-v1-0", "inbound")

	p.Temporarily("policies.yaml", allow("api-v1", "db"))
	await(p.t, 10*time.Second, "the policy holds on a connection from before", func() error {
		if a := http.Say(""); a.Code != 403 {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	p.RemoveObject("policies.yaml")
	await(p.t, 10*time.Second, "the policy is gone", func() error {
		if a := http.Say(""); a.Code != 200 {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	p.oneConnection("api-v1-0", "/held")
	if after := p.listeners("web-0", "outbound") + p.listeners("db-0", "inbound") + p.listeners("api-v1-0", "inbound"); after != before {
		p.t.Errorf("a policy for HTTP changed listeners from\n%s to\n%s", before, after)
	}
	p.silenced(raw)
}

// oneConnection fails the test if a proxy logged requests for a path from more than one
// connection, or none.
func (p *project) oneConnection(workload, path string) {
	p.t.Helper()
	await(p.t, 5*time.Second, "the requests are logged", func() error {
		codes, connections := map[string]bool{}, map[string]bool{}
		for _, line := range p.AccessLog(workload) {
			if line["path"] == path {
				codes[fmt.Sprint(line["code"])] = true
				connections[fmt.Sprint(line["connection_id"])] = true
			}
		}
		if !codes["200"] || !codes["403"] || len(connections) != 1 {
			return fmt.Errorf("codes %v on connections %v", codes, connections)
		}
		return nil
	})
}

// silenced turns the access logs off, and on again, and looks that a raw connection and
// the listeners that it passes are left alone.
func (p *project) silenced(raw *held) {
	p.t.Helper()
	before := p.listeners("web-0", "outbound") + p.listeners("db-0", "inbound")
	p.Temporarily("config.yaml", `
apiVersion: mesh.heddle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {accessLog: false, tracing: {samplingPercent: 7}}
`)
	p.awaitRuntime("web-0", "0")
	decode(p.t, p.MustAsk("web-0", "get", "http://api-v1/silent"))
	p.RemoveObject("config.yaml")
	p.awaitRuntime("web-0", "100")
	await(p.t, 10*time.Second, "access logs are on", func() error {
		decode(p.t, p.MustAsk("web-0", "get", "http://api-v1/heard"))
		if !strings.Contains(p.Log("web-0"), "/heard") {
			return fmt.Errorf("no request is logged")
		}
		return nil
	})
	if strings.Contains(p.Log("web-0"), "/silent") {
		p.t.Error("a request is logged while access logs are off")
	}
	if after := p.listeners("web-0", "outbound") + p.listeners("db-0", "inbound"); after != before {
		p.t.Errorf("the mesh's settings changed listeners from\n%s to\n%s", before, after)
	}
	if a := raw.Say("two"); a.Body != "two" {
		p.t.Errorf("a raw connection from before: %+v", a)
	}
}

// awaitRuntime waits until a workload's Envoy has a value for the share of requests to log.
func (p *project) awaitRuntime(workload, want string) {
	p.t.Helper()
	await(p.t, 10*time.Second, workload+" logs "+want+"% of its requests", func() error {
		text, err := p.Admin(workload, "/runtime")
		if err != nil {
			return err
		}
		var runtime struct {
			Entries map[string]struct {
				Value string `json:"final_value"`
			}
		}
		if err := json.Unmarshal([]byte(text), &runtime); err != nil {
			return err
		}
		if got := runtime.Entries["heddle.access_log"].Value; got != want {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// listeners tells since when a workload's Envoy has a listener as it is.
func (p *project) listeners(workload, name string) string {
	p.t.Helper()
	text, err := p.Admin(workload, "/config_dump?resource=dynamic_listeners")
	if err != nil {
		p.t.Fatal(err)
	}
	var dump struct {
		Configs []struct {
			Name        string
			ActiveState struct {
				VersionInfo string `json:"version_info"`
				LastUpdated string `json:"last_updated"`
			} `json:"active_state"`
		}
	}
	if err := json.Unmarshal([]byte(text), &dump); err != nil {
		p.t.Fatalf("%.300s: %v", text, err)
	}
	for _, c := range dump.Configs {
		if c.Name == name {
			return fmt.Sprintf("%s of %s: %s since %s\n", name, workload, c.ActiveState.VersionInfo, c.ActiveState.LastUpdated)
		}
	}
	p.t.Fatalf("%s has no listener %s: %.300s", workload, name, text)
	return ""
}

// TestDeniedConnection holds a raw connection of a caller that is then denied: another is
// refused at once, and this one is cut when the proxy has drained what was there before.
func TestDeniedConnection(t *testing.T) {
	t.Parallel()
	inBestMode(t, func(t *testing.T, mode string) {
		p := start(t, mode, shop, shopObjects())
		raw := p.Hold("web-0", "tcp", "db:3306")
		if a := raw.Say("before"); a.Body != "before" {
			t.Fatalf("a raw connection: %+v", a)
		}
		p.WriteObject("policies.yaml", allow("db", "api"))
		await(t, 10*time.Second, "another connection is refused", func() error {
			a, err := p.Ask("web-0", "tcp", "db:3306")
			if err == nil && a.Body != "" {
				err = fmt.Errorf("%+v", a)
			}
			return err
		})
		await(t, 90*time.Second, "the connection from before is cut", func() error {
			if a := raw.Say("after"); a.Error == "" {
				return fmt.Errorf("%+v", a)
			}
			return nil
		})
	})
}
