package attest

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

func mustID(t testing.TB, uri string) spiffeid.ID {
	t.Helper()
	id, err := spiffeid.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustOpen(t testing.TB, dir string) *Tokens {
	t.Helper()
	tokens, err := OpenTokens(dir, "shop.example")
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func mustCreate(t testing.TB, tokens *Tokens, spec TokenSpec) JoinToken {
	t.Helper()
	token, _, err := tokens.Create(spec, Fingerprint{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenConditions(t *testing.T) {
	api, db := mustID(t, "spiffe://shop.example/ns/default/sa/api"), mustID(t, "spiffe://shop.example/ns/default/sa/db")
	uid := uint32(1000)
	for _, tc := range []struct {
		name     string
		spec     TokenSpec
		evidence Evidence // Token is filled in
		change   func(JoinToken) JoinToken
		kind     error
		want     string
	}{
		{name: "good", evidence: Evidence{Requested: api}},
		{name: "no identity requested"},
		{name: "another identity", evidence: Evidence{Requested: db}, kind: ErrDenied, want: "sa/db"},
		{name: "its user", spec: TokenSpec{UID: &uid}, evidence: Evidence{Peer: &PeerCred{UID: uid}}},
		{name: "another user", spec: TokenSpec{UID: &uid}, evidence: Evidence{Peer: &PeerCred{UID: 1001}}, kind: ErrDenied, want: "has uid 1001"},
		{name: "root is another user", spec: TokenSpec{UID: &uid}, evidence: Evidence{Peer: &PeerCred{UID: 0}}, kind: ErrDenied, want: "has uid 0"},
		{name: "for a user, but by TCP", spec: TokenSpec{UID: &uid}, kind: ErrDenied, want: "Unix socket"},
		{name: "wrong secret", change: func(token JoinToken) JoinToken {
			parts, _ := token.parse()
			parts.secret[0] ^= 1
			return parts.token()
		}, kind: ErrUnauthenticated, want: "unknown"},
		{name: "garbage", change: func(JoinToken) JoinToken { return "xyzzy" }, kind: ErrUnauthenticated, want: "not a join token"},
		{name: "none", change: func(JoinToken) JoinToken { return "" }, kind: ErrNotMine},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tokens := mustOpen(t, filepath.Join(t.TempDir(), "tokens"))
			tc.spec.ID, tc.spec.TTL = api, time.Hour
			tc.evidence.Token = mustCreate(t, tokens, tc.spec)
			if tc.change != nil {
				tc.evidence.Token = tc.change(tc.evidence.Token)
			}
			who, err := tokens.Attest(t.Context(), tc.evidence)
			if tc.kind == nil {
				if err != nil || who != (Attested{api, tc.evidence.Token.Name()}) {
					t.Errorf("Attest = %v, %v", who, err)
				}
				return
			}
			if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want) || who != (Attested{}) {
				t.Errorf("Attest = %v, %v; want %v with %q", who, err, tc.kind, tc.want)
			}
		})
	}
}

func TestTokenEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tokens := mustOpen(t, filepath.Join(dir, "tokens"))
		api := mustID(t, "spiffe://shop.example/ns/default/sa/api")
		use := func(token JoinToken) error {
			_, err := mustOpen(t, filepath.Join(dir, "tokens")).Attest(t.Context(), Evidence{Token: token}) // as after a restart
			return err
		}
		expiring := mustCreate(t, tokens, TokenSpec{ID: api, TTL: time.Minute})
		time.Sleep(time.Minute - time.Nanosecond)
		if err := use(expiring); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Nanosecond)
		if err := use(expiring); !errors.Is(err, ErrUnauthenticated) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after its end: %v", err)
		}

		once := mustCreate(t, tokens, TokenSpec{ID: api, TTL: time.Hour, SingleUse: true})
		if len(tokens.List()) != 1 {
			t.Errorf("%d tokens, want the new one only: %v", len(tokens.List()), tokens.List())
		}
		if err := use(once); err != nil {
			t.Error(err)
		}
		if err := use(once); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("second use: %v", err)
		}

		revoked := mustCreate(t, tokens, TokenSpec{ID: api, TTL: time.Hour})
		if err := tokens.Revoke(revoked.Name()); err != nil {
			t.Error(err)
		}
		if err := use(revoked); !errors.Is(err, ErrUnauthenticated) || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("revoked: %v", err)
		}
		if err := tokens.Revoke(revoked.Name()); !errors.Is(err, ErrNoToken) {
			t.Errorf("revoked twice: %v", err)
		}
	})
}

func TestCreateRefuses(t *testing.T) {
	tokens := mustOpen(t, filepath.Join(t.TempDir(), "tokens"))
	for name, spec := range map[string]TokenSpec{
		"no identity":          {TTL: time.Hour},
		"foreign trust domain": {ID: mustID(t, "spiffe://other.example/ns/default/sa/api"), TTL: time.Hour},
		"no TTL":               {ID: mustID(t, "spiffe://shop.example/ns/default/sa/api")},
		"TTL of ten years":     {ID: mustID(t, "spiffe://shop.example/ns/default/sa/api"), TTL: 10 * 365 * 24 * time.Hour},
	} {
		if _, _, err := tokens.Create(spec, Fingerprint{}); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v, want ErrSpec", name, err)
		}
	}
}

func TestTokenSecretIsNeitherStoredNorPrinted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tokens")
	tokens := mustOpen(t, dir)
	token := mustCreate(t, tokens, TokenSpec{ID: mustID(t, "spiffe://shop.example/ns/default/sa/api"), TTL: time.Hour})
	secret := strings.Split(token.Reveal(), ".")[2]
	file, err := os.ReadFile(filepath.Join(dir, tokensFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(file), secret) {
		t.Error("the file holds the secret")
	}
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "token", token, "evidence", Evidence{Token: token}, "list", tokens.List())
	text, err := json.Marshal(Evidence{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	log.Write(text)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{token, &token, Evidence{Token: token}, []JoinToken{token}, tokens} {
			fmt.Fprintf(&log, verb, value)
		}
	}
	if _, err := ParseJoinToken(token.Reveal() + "x"); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error for a bad token: %v", err)
	}
	if strings.Contains(log.String(), secret) || strings.Contains(log.String(), fmt.Sprintf("%x", secret)) {
		t.Errorf("the secret is printed: %s", &log)
	}
}

func TestTokensFileOfOthersIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tokens")
	tokens := mustOpen(t, dir)
	mustCreate(t, tokens, TokenSpec{ID: mustID(t, "spiffe://shop.example/ns/default/sa/api"), TTL: time.Hour})
	path := filepath.Join(dir, tokensFile)
	if _, err := OpenTokens(dir, "other.example"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("another trust domain: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTokens(dir, "shop.example"); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("wide mode: %v", err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(newTokenParts(Fingerprint{}).token().Reveal())
	f.Add("heddle1...")
	f.Add(strings.Replace(newTokenParts(Fingerprint{}).token().Reveal(), "AAAA", "AA\nAA", 1))
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseJoinToken(text)
		if err != nil {
			return
		}
		if parts, err := token.parse(); err != nil || parts.token() != token {
			t.Fatal("a token has two spellings")
		}
	})
}

func FuzzTokensFile(f *testing.F) {
	tokens := mustOpen(f, filepath.Join(f.TempDir(), "tokens"))
	mustCreate(f, tokens, TokenSpec{ID: mustID(f, "spiffe://shop.example/ns/default/sa/api"), TTL: time.Hour})
	data, err := os.ReadFile(tokens.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"tokens":[{"name":"00"}]}`))
	f.Add([]byte(`{"tokens":[],"revoked":[{"name":"0123456789abcdef","at":"2026-01-02T03:04:05Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, revoked, err := parseTokens(data, "shop.example")
		if err != nil {
			return
		}
		for name, r := range records {
			if r.ID.TrustDomain() != "shop.example" || r.Name != name {
				t.Fatalf("took %+v", r.TokenInfo)
			}
		}
		for name := range revoked {
			if !isTokenName(name) {
				t.Fatalf("took a revoked %q", name)
			}
		}
	})
}
