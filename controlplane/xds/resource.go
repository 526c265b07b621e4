package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Key names one resource in the cache. Variant tells apart resources that have the
// same name for different proxies; the empty variant is the one for everybody.
type Key struct {
	Type    string // type URL, such as ClusterType
	Name    string
	Variant string
}

// String is short and for people: the message's name, the resource's, and the variant.
func (k Key) String() string {
	typ := k.Type
	for i := len(typ) - 1; i >= 0; i-- {
		if typ[i] == '.' || typ[i] == '/' {
			typ = typ[i+1:]
			break
		}
	}
	if k.Variant == "" {
		return typ + " " + k.Name
	}
	return typ + " " + k.Name + " (" + k.Variant + ")"
}

// Origin is an object that a resource was made from.
type Origin struct {
	Kind, Namespace, Name string
	Generation            int64
}

// Resource is one encoded xDS resource. It never changes after it is made, and its
// bytes are shared by all streams that send it.
type Resource struct {
	Key
	Version string   // hash of the content, or what NewEncoded was given
	Origins []Origin // provenance
	// Needs is what must be live before this is of use, such as a cluster's endpoints or
	// a listener's routes, as clients ask for it: without variant. It is empty (unknown) or
	// complete.
	Needs []Key
	// Groups are what the resource is a part of, such as services, its own first, then those
	// that need it, too: a proxy that is not interested in any of them does not get it by a
	// wildcard. None: it is for everybody.
	Groups []string

	// wire is field 2 of a DeltaDiscoveryResponse: tag, length and the
	// envoy.service.discovery.v3.Resource.
	wire []byte
	body []byte // the message itself, a part of wire
}

// NewResource encodes m, deterministically, under the key. The version is the first 16
// hexadecimal digits of the SHA-256 of the encoded message.
func NewResource(key Key, m proto.Message, origins []Origin, needs ...Key) (*Resource, error) {
	if typ := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()); typ != key.Type {
		return nil, fmt.Errorf("encode %s: message is a %s", key, typ)
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	sum := sha256.Sum256(body)
	return encode(key, hex.EncodeToString(sum[:8]), body, origins, needs), nil
}

// NewEncoded wraps a message that somebody else encoded, under the version it came with.
func NewEncoded(key Key, version string, m *anypb.Any, origins []Origin, needs ...Key) (*Resource, error) {
	if m.GetTypeUrl() != key.Type {
		return nil, fmt.Errorf("wrap %s: message is a %q", key, m.GetTypeUrl())
	}
	if version == "" {
		return nil, fmt.Errorf("wrap %s: no version", key)
	}
	return encode(key, version, m.GetValue(), origins, needs), nil
}

// Field numbers of envoy.service.discovery.v3 and google.protobuf.Any.
const (
	fieldResponseVersion   = 1
	fieldResponseResources = 2
	fieldResponseTypeURL   = 4
	fieldResponseNonce     = 5
	fieldResponseRemoved   = 6
	fieldResourceVersion   = 1
	fieldResourceMessage   = 2
	fieldResourceName      = 3
	fieldAnyTypeURL        = 1
	fieldAnyValue          = 2
)

func encode(key Key, version string, body []byte, origins []Origin, needs []Key) *Resource {
	sizeOf := func(n int) int { return protowire.SizeTag(1) + protowire.SizeBytes(n) } // all fields here are < 16
	message := sizeOf(len(key.Type)) + sizeOf(len(body))
	whole := sizeOf(len(version)) + sizeOf(message) + sizeOf(len(key.Name))

	b := make([]byte, 0, sizeOf(whole))
	b = appendHeader(b, fieldResponseResources, whole)
	b = appendString(b, fieldResourceName, key.Name)
	b = appendString(b, fieldResourceVersion, version)
	b = appendHeader(b, fieldResourceMessage, message)
	b = appendString(b, fieldAnyTypeURL, key.Type)
	b = appendHeader(b, fieldAnyValue, len(body))
	b = append(b, body...)
	return &Resource{
		Key: key, Version: version,
		Origins: slices.Clip(origins), Needs: slices.Clip(needs),
		wire: b, body: b[len(b)-len(body):],
	}
}

func appendHeader(b []byte, field protowire.Number, length int) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(length))
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// Message returns the resource's message. The bytes are shared: do not change them.
func (r *Resource) Message() *anypb.Any { return &anypb.Any{TypeUrl: r.Type, Value: r.body} }

// Size is what the resource adds to a response, in bytes.
func (r *Resource) Size() int { return len(r.wire) }
