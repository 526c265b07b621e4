package translate

import (
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// accessLogKey is the percentage of connections and requests that are logged.
const accessLogKey = "heddle.access_log"

// RuntimeIn is what the proxies' runtime layer is made of.
type RuntimeIn struct{ AccessLog bool }

// Runtime makes the layer of Envoy's runtime that holds the mesh's settings. What is set
// here and not in listeners changes without a listener's drain, which would end every
// database connection of the mesh.
func Runtime(in RuntimeIn) *runtimev3.Runtime {
	logged := 0.0
	if in.AccessLog {
		logged = 100
	}
	return &runtimev3.Runtime{
		Name:  RuntimeName,
		Layer: &structpb.Struct{Fields: map[string]*structpb.Value{accessLogKey: structpb.NewNumberValue(logged)}},
	}
}
