package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// sessions is what came of connections that were each made anew.
type sessions struct {
	OK, Failed int
	Failures   map[string]int
	Own, Peer  map[string]int // sessions by the certificate's serial number
}

// Handshakes makes TLS connections at a constant rate, with the SVIDs of a workload, right
// to a port of another's proxy.
func (p *project) Handshakes(workload, to string, port, rate int) *load {
	p.t.Helper()
	cmd, err := p.outside("handshakes", p.RunDir(workload)+"/app/workload.sock", fmt.Sprintf("%s:%d", p.Address(to, false), port), fmt.Sprint(rate))
	if err != nil {
		p.t.Fatal(err)
	}
	return p.background(workload+" to "+to, cmd)
}

// Connects makes connections at a constant rate from a workload to a service that speaks
// first. Its proxy makes one of TLS for each.
func (p *project) Connects(workload, address string, rate int) *load {
	p.t.Helper()
	return p.background(workload+" to "+address, p.command(p.heddle, "exec", workload, "--", p.app, "connects", address, fmt.Sprint(rate)))
}

// background starts a command of the test's program that goes on until it is stopped.
func (p *project) background(name string, cmd *exec.Cmd) *load {
	p.t.Helper()
	l := &load{t: p.t, name: name, cmd: cmd}
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	l.stop = in
	cmd.Stdout, cmd.Stderr = &l.out, &l.stderr
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return l
}

// AllMade ends connections that are made all the time, and fails the test if one failed.
func (l *load) AllMade() sessions {
	l.t.Helper()
	l.Stop()
	var s sessions
	if err := json.Unmarshal(l.out.Bytes(), &s); err != nil {
		l.t.Fatal(err)
	}
	l.t.Logf("%s: %d connections made, %d failed; certificates: own %v, the peer's %v", l.name, s.OK, s.Failed, s.Own, s.Peer)
	if s.Failed > 0 || s.OK == 0 {
		l.t.Errorf("%s: %d connections failed: %v", l.name, s.Failed, s.Failures)
	}
	return s
}

// serial is the serial number of the SVID that a workload's Envoy uses now.
func (p *project) serial(workload string) (string, error) {
	text, err := p.Admin(workload, "/certs")
	if err != nil {
		return "", err
	}
	var certs struct {
		Certificates []struct {
			Chain []struct {
				Serial string                 `json:"serial_number"`
				SANs   []struct{ URI string } `json:"subject_alt_names"`
			} `json:"cert_chain"`
		}
	}
	if err := json.Unmarshal([]byte(text), &certs); err != nil {
		return "", err
	}
	for _, c := range certs.Certificates {
		for _, cert := range c.Chain {
			for _, san := range cert.SANs {
				if strings.Contains(san.URI, "/sa/") {
					return cert.Serial, nil
				}
			}
		}
	}
	return "", fmt.Errorf("no SVID in %s", text)
}
