package ca

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// PEM headers of a root, with RFC 3339 times.
const (
	sinceHeader    = "Since"    // when it was seen first
	replacedHeader = "Replaced" // when it signed last
)

// trusted is a root and what is known of its life; a time that is zero is not.
type trusted struct {
	cert            *x509.Certificate
	since, replaced time.Time
}

func marshalTrusted(roots []trusted) (data []byte) {
	for _, t := range roots {
		headers := map[string]string{}
		for header, at := range map[string]time.Time{sinceHeader: t.since, replacedHeader: t.replaced} {
			if !at.IsZero() {
				headers[header] = at.UTC().Format(time.RFC3339)
			}
		}
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Headers: headers, Bytes: t.cert.Raw})...)
	}
	return data
}

func parseTrusted(data []byte) (out []trusted, err error) {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return out, nil
		}
		var t trusted
		if t.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		for header, at := range map[string]*time.Time{sinceHeader: &t.since, replacedHeader: &t.replaced} {
			text, ok := block.Headers[header]
			if !ok {
				continue
			}
			if *at, err = time.Parse(time.RFC3339, text); err != nil {
				return nil, fmt.Errorf("certificate %d: header %s: %w", len(out)+1, header, err)
			}
		}
		out, data = append(out, t), rest
	}
}
