package attest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// JoinToken is what an operator hands to a new workload so that it can get its first
// SVID. It reads heddle1.KEYID.SECRET.FINGERPRINT: a public name of the token, 256 random
// bits, and the SHA-256 of the root certificate by which the holder recognises the
// control plane. It prints as its name only; Reveal gives the text.
type JoinToken string

const (
	tokenVersion = "heddle1"
	keyIDBytes   = 8
	secretBytes  = 32
	maxToken     = 256 // bytes of text; a token has 119
)

// Fingerprint is the SHA-256 of a root certificate in DER.
type Fingerprint [sha256.Size]byte

// String is the fingerprint in hexadecimal, as openssl prints it but for the colons.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// ParseFingerprints reads fingerprints in hexadecimal, with commas between them.
func ParseFingerprints(text string) ([]Fingerprint, error) {
	var out []Fingerprint
	for s := range strings.SplitSeq(text, ",") {
		data, err := hex.DecodeString(strings.TrimSpace(s))
		if err != nil || len(data) != sha256.Size {
			return nil, fmt.Errorf("%.80q is not the SHA-256 of a root certificate: 64 hexadecimal digits", s)
		}
		out = append(out, Fingerprint(data))
	}
	return out, nil
}

// tokenParts is a parsed token.
type tokenParts struct {
	keyID  string
	secret [secretBytes]byte
	root   Fingerprint
}

var errTokenForm = errors.New("not a join token (heddle1.KEYID.SECRET.FINGERPRINT); make one with heddle token create")

// parse never quotes its input in an error.
func (t JoinToken) parse() (tokenParts, error) {
	fields := strings.Split(string(t), ".")
	if len(t) > maxToken || len(fields) != 4 || fields[0] != tokenVersion {
		return tokenParts{}, errTokenForm
	}
	p := tokenParts{keyID: fields[1]}
	if !isTokenName(p.keyID) {
		return tokenParts{}, errTokenForm
	}
	secret, err := base64.RawURLEncoding.DecodeString(fields[2])
	if err != nil || len(secret) != secretBytes {
		return tokenParts{}, errTokenForm
	}
	root, err := base64.RawURLEncoding.DecodeString(fields[3])
	if err != nil || len(root) != len(p.root) {
		return tokenParts{}, errTokenForm
	}
	copy(p.secret[:], secret)
	copy(p.root[:], root)
	if p.token() != t { // base64 lets line breaks and loose last bits pass
		return tokenParts{}, errTokenForm
	}
	return p, nil
}

// isTokenName reports whether a name has the form of a token's.
func isTokenName(name string) bool {
	id, err := hex.DecodeString(name)
	return err == nil && len(id) == keyIDBytes && hex.EncodeToString(id) == name
}

func newTokenParts(root Fingerprint) tokenParts {
	id := make([]byte, keyIDBytes)
	rand.Read(id) // crypto/rand.Read never fails
	p := tokenParts{keyID: hex.EncodeToString(id), root: root}
	rand.Read(p.secret[:])
	return p
}

func (p tokenParts) token() JoinToken {
	return JoinToken(strings.Join([]string{
		tokenVersion, p.keyID,
		base64.RawURLEncoding.EncodeToString(p.secret[:]),
		base64.RawURLEncoding.EncodeToString(p.root[:]),
	}, "."))
}

func (p tokenParts) hash() [sha256.Size]byte { return sha256.Sum256(p.secret[:]) }

// ParseJoinToken checks the form of a token, as for a command line flag or a file.
// The error does not hold the text.
func ParseJoinToken(text string) (JoinToken, error) {
	t := JoinToken(strings.TrimSpace(text))
	if _, err := t.parse(); err != nil {
		return "", err
	}
	return t, nil
}

// Root is the fingerprint of the root certificate of the control plane that made the token.
func (t JoinToken) Root() (Fingerprint, error) {
	p, err := t.parse()
	return p.root, err
}

// Reveal returns the token's text, to be sent or shown to its owner once.
func (t JoinToken) Reveal() string { return string(t) }

// Name is the public part of a token, "" if it has none.
func (t JoinToken) Name() string {
	p, err := t.parse()
	if err != nil {
		return ""
	}
	return p.keyID
}

// Format keeps the secret out of logs and errors whatever the verb.
func (t JoinToken) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "join-token(%s)", t.Name()) }

// LogValue does the same for slog.
func (t JoinToken) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(t)) }

// MarshalText does the same for JSON and YAML.
func (t JoinToken) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", t), nil }
