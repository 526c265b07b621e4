package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/heddle-mesh/heddle/identity/spiffeid"
	"github.com/heddle-mesh/heddle/identity/statefile"
)

const (
	tokensFile    = "tokens.json"
	maxTokensFile = 8 << 20 // bytes; maxTokens of them take 3 MB
)

// tokenRecord is a token as the store holds it.
type tokenRecord struct {
	TokenInfo
	hash [sha256.Size]byte // of the secret
}

// tokenJSON is one token in the file.
type tokenJSON struct {
	Name      string    `json:"name"`
	SHA256    string    `json:"sha256"`
	ID        string    `json:"id"`
	UID       *uint32   `json:"uid,omitempty"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	SingleUse bool      `json:"singleUse,omitempty"`
}

// revokedJSON is one revoked token in the file.
type revokedJSON struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

type tokensJSON struct {
	Tokens  []tokenJSON   `json:"tokens"`
	Revoked []revokedJSON `json:"revoked,omitempty"`
}

func (s *Tokens) load(dir string) error {
	if err := statefile.MkdirAll(dir); err != nil {
		return err
	}
	s.path = filepath.Join(dir, tokensFile)
	s.tokens, s.revoked = map[string]tokenRecord{}, map[string]time.Time{}
	data, err := statefile.Read(s.path, maxTokensFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.tokens, s.revoked, err = parseTokens(data, s.trustDomain)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	return nil
}

func parseTokens(data []byte, trustDomain string) (map[string]tokenRecord, map[string]time.Time, error) {
	var file tokensJSON
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, nil, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, nil, errors.New("something follows the JSON object")
	}
	tokens := make(map[string]tokenRecord, len(file.Tokens))
	for i, j := range file.Tokens {
		record, err := j.record(trustDomain)
		if err != nil {
			return nil, nil, fmt.Errorf("token %d: %w", i+1, err)
		}
		if _, twice := tokens[j.Name]; twice {
			return nil, nil, fmt.Errorf("token %d: name %s is there twice", i+1, j.Name)
		}
		tokens[j.Name] = record
	}
	revoked := make(map[string]time.Time, len(file.Revoked))
	for i, r := range file.Revoked {
		if !isTokenName(r.Name) {
			return nil, nil, fmt.Errorf("revoked token %d: bad name %q", i+1, r.Name)
		}
		revoked[r.Name] = r.At
	}
	return tokens, revoked, nil
}

func (j tokenJSON) record(trustDomain string) (tokenRecord, error) {
	id, err := spiffeid.Parse(j.ID)
	if err != nil {
		return tokenRecord{}, err
	}
	if id.TrustDomain() != trustDomain {
		return tokenRecord{}, fmt.Errorf("identity %s is not of trust domain %s", id, trustDomain)
	}
	if !isTokenName(j.Name) {
		return tokenRecord{}, fmt.Errorf("bad name %q", j.Name)
	}
	r := tokenRecord{TokenInfo: TokenInfo{Name: j.Name, ID: id, UID: j.UID, Created: j.Created, Expires: j.Expires, SingleUse: j.SingleUse}}
	if n, err := hex.Decode(r.hash[:], []byte(j.SHA256[:min(len(j.SHA256), 2*len(r.hash))])); err != nil || n != len(r.hash) || len(j.SHA256) != 2*n {
		return tokenRecord{}, errors.New("bad hash")
	}
	return r, nil
}

// store writes tokens and revocations to disk, then makes them the current ones. s.mu is held.
func (s *Tokens) store(tokens map[string]tokenRecord, revoked map[string]time.Time) error {
	file := tokensJSON{Tokens: make([]tokenJSON, 0, len(tokens))}
	for _, r := range tokens {
		file.Tokens = append(file.Tokens, tokenJSON{
			Name: r.Name, SHA256: hex.EncodeToString(r.hash[:]), ID: r.ID.String(), UID: r.UID,
			Created: r.Created, Expires: r.Expires, SingleUse: r.SingleUse,
		})
	}
	for name, at := range revoked {
		file.Revoked = append(file.Revoked, revokedJSON{name, at})
	}
	data, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return fmt.Errorf("encode join tokens: %w", err)
	}
	if err := statefile.Write(s.path, data); err != nil {
		return err
	}
	s.tokens, s.revoked = tokens, revoked
	return nil
}
