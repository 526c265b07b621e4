package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/statefile"
)

const (
	svidFile    = "svid.json"
	maxSVIDFile = 256 << 10 // bytes
)

// svidJSON is the copy on disk: one file, so that key, chain and bundle always fit.
type svidJSON struct {
	Chain  string `json:"chain"`  // PEM, leaf first
	Key    string `json:"key"`    // PEM, PKCS #8
	Bundle string `json:"bundle"` // PEM
}

func (a *Agent) store(c *credentials) error {
	chain, key, err := c.svid.Marshal()
	if err != nil {
		return fmt.Errorf("encode SVID: %w", err)
	}
	bundle, err := c.bundle.Marshal()
	if err != nil {
		return fmt.Errorf("encode bundle: %w", err)
	}
	data, err := json.Marshal(svidJSON{Chain: string(chain), Key: string(key), Bundle: string(bundle)})
	if err != nil {
		return fmt.Errorf("encode SVID: %w", err)
	}
	return statefile.Write(filepath.Join(a.config.Dir, svidFile), data)
}

// load returns the SVID on disk, or nil when there is none that can be used; then the
// log says why.
func (a *Agent) load() *credentials {
	path := filepath.Join(a.config.Dir, svidFile)
	data, err := statefile.Read(path, maxSVIDFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var c *credentials
	if err == nil {
		c, err = a.parse(data, time.Now())
	}
	if err != nil {
		a.config.Log.Warn("SVID on disk not used", "id", a.config.ID, "path", path, "error", err)
		return nil
	}
	return c
}

// parse reads what store wrote and checks that it is valid at now and this workload's.
// Errors do not quote the input, which is secret.
func (a *Agent) parse(data []byte, now time.Time) (*credentials, error) {
	var file svidJSON
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, errors.New("not a valid SVID file")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("something follows the SVID in its file")
	}
	svid, err := x509svid.Parse([]byte(file.Chain), []byte(file.Key))
	if err != nil {
		return nil, err
	}
	td, err := gospiffe.TrustDomainFromString(a.config.ID.TrustDomain())
	if err != nil {
		return nil, err
	}
	bundle, err := x509bundle.Parse(td, []byte(file.Bundle))
	if err != nil {
		return nil, err
	}
	c := &credentials{svid: svid, bundle: bundle}
	if err := a.check(c, now); err != nil {
		return nil, err
	}
	return c, nil
}
