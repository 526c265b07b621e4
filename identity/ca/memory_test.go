package ca

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// site is a mesh with an issuer that changes its mind, and replicas that share a memory.
type site struct {
	*testing.T
	random    *rand.Rand
	issuers   []issuer
	now       *Issued // what the issuer gives
	memory    Files
	replicas  []*CA
	id        spiffeid.ID
	workloads []workload
}

// workload has what it got at its last renewal.
type workload struct {
	svid   []*x509.Certificate
	bundle *x509bundle.Bundle
}

// TestMemory has two replicas restart at any time while the issuer's root changes at any
// time. Whoever of them signs, workloads that renew at half life trust each other.
func TestMemory(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{T: t, random: rand.New(rand.NewPCG(seed, 1)), id: mustID(t, "spiffe://shop.example/ns/default/sa/api")}
				for i := range 3 {
					s.issuers = append(s.issuers, newIssuer(t, fmt.Sprint("root ", i)))
				}
				s.now = s.issuers[0].mustIssue(900 * time.Hour)
				s.replicas = make([]*CA, 2)
				for i := range s.replicas {
					s.restart(i)
					s.follow(i)
				}
				s.workloads = make([]workload, 4)
				for i := range s.workloads {
					s.renew(i)
				}
				for minute := range 400 {
					s.minute(minute)
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

// minute is what happens in a minute, and what must hold after it.
func (s *site) minute(minute int) {
	if s.random.IntN(25) == 0 {
		s.change()
	}
	for _, i := range s.random.Perm(len(s.replicas)) {
		if s.random.IntN(10) == 0 {
			s.restart(i)
		}
		s.follow(i)
	}
	for i := range s.workloads {
		if minute%30 == i*30/len(s.workloads) {
			s.renew(i)
		}
	}
	for i, w := range s.workloads {
		for j, peer := range s.workloads {
			if _, _, err := x509svid.Verify(w.svid, peer.bundle); err != nil {
				s.Fatalf("minute %d: SVID of workload %d at %d: %v", minute, i, j, err)
			}
		}
		for j, c := range s.replicas {
			if _, _, err := x509svid.Verify(w.svid, c.Bundle()); err != nil {
				s.Fatalf("minute %d: SVID of workload %d at replica %d: %v", minute, i, j, err)
			}
		}
	}
}

// change has the issuer go to another root, announce one, or renew.
func (s *site) change() {
	s.now = s.issuers[s.random.IntN(len(s.issuers))].mustIssue(900 * time.Hour)
	if s.random.IntN(3) == 0 {
		s.now.roots = append(s.now.roots, s.issuers[s.random.IntN(len(s.issuers))].cert)
	}
}

func (s *site) restart(i int) {
	c, err := OpenIssued(testConfig(), s.memory, s.now)
	if err != nil {
		s.Fatal(err)
	}
	s.replicas[i] = c
}

// follow is what a replica does every ten seconds.
func (s *site) follow(i int) {
	c := s.replicas[i]
	err := c.Reissue(s.now)
	if err == nil {
		err = c.CatchUp()
	}
	if err == nil {
		err = c.Merge(s.memory)
	}
	if err == nil {
		s.memory, err = c.Memory()
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) renew(i int) {
	c := s.replicas[s.random.IntN(len(s.replicas))]
	s.workloads[i] = workload{mustSign(s.T, c, s.id), c.Bundle()}
}

// TestMemoryConverges: replicas that have seen the same agree on what to remember.
func TestMemoryConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t, issuers: []issuer{newIssuer(t, "one"), newIssuer(t, "two")}, replicas: make([]*CA, 2)}
		for _, by := range s.issuers {
			s.now = by.mustIssue(900 * time.Hour)
			for i := range s.replicas {
				if s.replicas[i] == nil {
					s.restart(i)
				}
				s.follow(i)
				time.Sleep(7 * time.Second)
			}
		}
		s.follow(0)
		before := s.memory
		for i := range s.replicas {
			if s.follow(i); !s.memory.Equal(before) {
				t.Errorf("replica %d remembers\n%s\nwant\n%s", i, s.memory[trustedFile], before[trustedFile])
			}
		}
		if n := strings.Count(string(before[trustedFile]), sinceHeader+": "); n != 1 {
			t.Errorf("%d roots have a time of first sight, want 1: %s", n, before[trustedFile])
		}
	})
}

// TestMemoryBadly: a memory that is of no use stops nobody, and a bad issue is no reason not
// to start where there is a memory.
func TestMemoryBadly(t *testing.T) {
	good := newIssuer(t, "good")
	c, err := OpenIssued(testConfig(), nil, good.mustIssue(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := c.Memory()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(Files){
		"no key": func(f Files) { delete(f, signerKeyFile) },
		"no time": func(f Files) {
			f[trustedFile] = []byte(strings.ReplaceAll(string(f[trustedFile]), "CERTIFICATE-----\n", "CERTIFICATE-----\nSince: now\n\n"))
		},
		"other keys": func(f Files) { clear(f); f["x"] = []byte("y") },
	} {
		spoilt := Files{}
		for file, data := range memory {
			spoilt[file] = data
		}
		change(spoilt)
		if _, err := OpenIssued(testConfig(), spoilt, good.mustIssue(time.Hour)); err != nil {
			t.Errorf("%s: with a good issue: %v", name, err)
		}
		if _, err := OpenIssued(testConfig(), spoilt, nil); err == nil {
			t.Errorf("%s: it opens with nothing", name)
		}
	}
	expired := good.mustIssue(-time.Hour)
	c, err = OpenIssued(testConfig(), memory, expired)
	if err != nil {
		t.Fatalf("a bad issue beside a memory: %v", err)
	}
	if _, _, err := x509svid.Verify(mustSign(t, c, mustID(t, "spiffe://shop.example/ns/default/sa/api")), c.Bundle()); err != nil {
		t.Errorf("it does not sign by its memory: %v", err)
	}
	if _, err := OpenIssued(testConfig(), nil, expired); err == nil {
		t.Error("it opens by what has expired")
	}
	own, err := Open(filepath.Join(t.TempDir(), "ca"), testConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Memory(); err == nil {
		t.Error("an authority with files of its own has a memory")
	}
}
