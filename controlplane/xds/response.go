package xds

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Response is a DeltaDiscoveryResponse whose resources are encoded already. Send it
// with a gRPC server that uses [Codec].
type Response struct {
	TypeURL   string
	Nonce     string
	Version   string // the cache's revision, for debugging
	Resources []*Resource
	Removed   []string
}

// Size is the encoded length in bytes.
func (r *Response) Size() int {
	n := r.tailSize()
	for _, res := range r.Resources {
		n += len(res.wire)
	}
	return n
}

func (r *Response) tailSize() int {
	n := 0
	for _, s := range [...]string{r.Version, r.TypeURL, r.Nonce} {
		n += protowire.SizeTag(1) + protowire.SizeBytes(len(s))
	}
	for _, name := range r.Removed {
		n += protowire.SizeTag(1) + protowire.SizeBytes(len(name))
	}
	return n
}

// buffers is the encoded response: the shared bytes of each resource, and what belongs
// to this stream.
func (r *Response) buffers() mem.BufferSlice {
	out := make(mem.BufferSlice, 0, len(r.Resources)+1)
	for _, res := range r.Resources {
		out = append(out, mem.SliceBuffer(res.wire))
	}
	tail := make([]byte, 0, r.tailSize())
	tail = appendString(tail, fieldResponseVersion, r.Version)
	tail = appendString(tail, fieldResponseTypeURL, r.TypeURL)
	tail = appendString(tail, fieldResponseNonce, r.Nonce)
	for _, name := range r.Removed {
		tail = appendString(tail, fieldResponseRemoved, name)
	}
	return append(out, mem.SliceBuffer(tail))
}

// Message returns the response as an ordinary message, for those who must look inside.
func (r *Response) Message() *discoveryv3.DeltaDiscoveryResponse {
	m := &discoveryv3.DeltaDiscoveryResponse{
		SystemVersionInfo: r.Version, TypeUrl: r.TypeURL, Nonce: r.Nonce, RemovedResources: r.Removed,
	}
	for _, res := range r.Resources {
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: res.Name, Version: res.Version, Resource: res.Message()})
	}
	return m
}

// codec sends *Response without copying, and everything else as the proto codec does.
type codec struct{ encoding.CodecV2 }

// Codec is what a gRPC server that serves ADS needs: grpc.ForceServerCodecV2(xds.Codec()).
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*Response); ok {
		return r.buffers(), nil
	}
	return c.CodecV2.Marshal(v)
}
