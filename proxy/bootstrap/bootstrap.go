package bootstrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Bootstrap makes Envoy's bootstrap. Its error is c.Validate's.
func Bootstrap(c Config) (*bootstrapv3.Bootstrap, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := &bootstrapv3.Bootstrap{
		Node:  node(c),
		Admin: admin(c.AdminSocket),
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{
			agentCluster(AgentCluster, c.AgentSocket),
			agentCluster(SDSCluster, c.AgentSocket),
			agentCluster(OTLPCluster, c.AgentSocket),
		}},
		DynamicResources: dynamicResources(),
		BootstrapExtensions: []*corev3.TypedExtensionConfig{{
			// Listeners that are reached from within: on-demand clusters point at them.
			Name: "envoy.bootstrap.internal_listener", TypedConfig: pack(&internalv3.InternalListener{}),
		}},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
			{Name: "heddle", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: runtime()}},
			{Name: MeshLayer, LayerSpecifier: &bootstrapv3.RuntimeLayer_RtdsLayer_{RtdsLayer: &bootstrapv3.RuntimeLayer_RtdsLayer{
				Name: MeshLayer, RtdsConfig: overADS(),
			}}},
			{Name: "admin", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}},
		}},
		ApplicationLogConfig: logConfig(),
		OverloadManager:      overloadManager(c),
		StatsConfig:          statsConfig(),
		// Histograms are merged when somebody reads them, not every five seconds.
		StatsFlush: &bootstrapv3.Bootstrap_StatsFlushOnAdmin{StatsFlushOnAdmin: true},
		// A cluster's traffic statistics take memory from its first request on.
		DeferredStatOptions: &bootstrapv3.Bootstrap_DeferredStatOptions{EnableDeferredCreationStats: true},
	}
	b.ClusterManager = clusterManager(c)
	if c.Zone != "" {
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, selfCluster())
	}
	return b, nil
}

func clusterManager(c Config) *bootstrapv3.ClusterManager {
	if c.Mark == 0 && c.Zone == "" {
		return nil
	}
	m := new(bootstrapv3.ClusterManager)
	if c.Mark != 0 {
		m.UpstreamBindConfig = marked(c.Mark)
	}
	if c.Zone != "" {
		m.LocalClusterName = SelfCluster
	}
	return m
}

// JSON encodes a bootstrap; equal messages give equal bytes.
func JSON(b *bootstrapv3.Bootstrap) ([]byte, error) {
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode the bootstrap: %w", err)
	}
	// protojson varies its white space on purpose.
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return nil, fmt.Errorf("encode the bootstrap: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// Write puts the bootstrap into file, atomically, readable for its owner only.
// When uid is not negative that is made the owner, since Envoy may run as
// another user than the agent.
func Write(c Config, file string, uid int) error {
	b, err := Bootstrap(c)
	if err != nil {
		return err
	}
	data, err := JSON(b)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".bootstrap-*") // 0600
	if err != nil {
		return fmt.Errorf("write the bootstrap: %w", err)
	}
	defer os.Remove(temp.Name()) // in vain once renamed
	_, err = temp.Write(data)
	if uid >= 0 {
		err = errors.Join(err, temp.Chown(uid, -1))
	}
	if err := errors.Join(err, temp.Close()); err != nil {
		return fmt.Errorf("write the bootstrap: %w", err)
	}
	if err := os.Rename(temp.Name(), file); err != nil {
		return fmt.Errorf("write the bootstrap: %w", err)
	}
	return nil
}

// runtime changes two of Envoy's defaults.
func runtime() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		// An HTTP connection manager behind an internal listener that closes its connection,
		// as it must after "connection: close", makes the TCP proxy before it reset the
		// client, which may lose the answer.
		"envoy.reloadable_features.enable_send_rst_on_user_space_socket": structpb.NewBoolValue(false),
		// The size of a compiled regular expression beyond which a route is refused: 100
		// instructions, the default, are few for what Gateway API allows in a match.
		"re2.max_program_size.error_level": structpb.NewNumberValue(10_000),
	}}
}

func node(c Config) *corev3.Node {
	metadata := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range c.Metadata {
		metadata.Fields[k] = structpb.NewStringValue(v)
	}
	return &corev3.Node{
		Id: c.ID, Cluster: c.Cluster, Metadata: metadata,
		Locality: &corev3.Locality{Region: c.Region, Zone: c.Zone},
	}
}

func admin(socket string) *bootstrapv3.Admin {
	return &bootstrapv3.Admin{
		Address: pipe(socket, 0o600),
		// An overloaded Envoy must still answer what is wrong with it.
		IgnoreGlobalConnLimit: true,
	}
}

func pipe(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}

// agentCluster leads to the agent. It has no HTTP/2 keep-alive: the socket
// breaks when the agent dies, and gRPC servers take frequent pings for abuse.
func agentCluster(name, socket string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(1e9),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: pipe(socket, 0)}},
			}}}},
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(&httpv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
						},
					},
				},
			}),
		},
	}
}

// selfCluster has the proxies that are of our identity, for the weighing of zones. Without an
// answer all zones are alike, and the start does not wait for it for ever: a control plane or
// a last good configuration of an older version has none.
func selfCluster() *clusterv3.Cluster {
	source := overADS()
	source.InitialFetchTimeout = durationpb.New(2 * time.Second)
	return &clusterv3.Cluster{
		Name:                 SelfCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: source},
		ConnectTimeout:       durationpb.New(1e9),
	}
}

// overADS makes something come over ADS, without a time limit for the first
// answer: an Envoy that began to serve without clusters, listeners or the
// mesh's settings would be a hole in the mesh, and is "not ready" until then.
func overADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
	}
}

func dynamicResources() *bootstrapv3.Bootstrap_DynamicResources {
	return &bootstrapv3.Bootstrap_DynamicResources{
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: AgentCluster},
			}}},
			SetNodeOnFirstMessageOnly: true,
		},
		CdsConfig: overADS(),
		LdsConfig: overADS(),
	}
}

// Socket options as socket(7) numbers them on Linux.
const (
	solSocket = 1
	soMark    = 36
)

func marked(mark uint32) *corev3.BindConfig {
	return &corev3.BindConfig{SocketOptions: []*corev3.SocketOption{{
		Description: "SO_MARK, by which capture rules know Envoy's own connections",
		Level:       solSocket, Name: soMark,
		Value: &corev3.SocketOption_IntValue{IntValue: int64(mark)},
		State: corev3.SocketOption_STATE_PREBIND,
	}}}
}

// logConfig makes Envoy's own log JSON, one object a line (%j is the message,
// escaped for JSON).
func logConfig() *bootstrapv3.Bootstrap_ApplicationLogConfig {
	field := structpb.NewStringValue
	return &bootstrapv3.Bootstrap_ApplicationLogConfig{
		LogFormat: &bootstrapv3.Bootstrap_ApplicationLogConfig_LogFormat{
			LogFormat: &bootstrapv3.Bootstrap_ApplicationLogConfig_LogFormat_JsonFormat{
				JsonFormat: &structpb.Struct{Fields: map[string]*structpb.Value{
					"time": field("%Y-%m-%dT%T.%e%z"), "level": field("%l"), "logger": field("envoy.%n"), "msg": field("%j"),
				}},
			},
		},
	}
}

// pack makes an Any of a message that is valid by construction.
func pack(m proto.Message) *anypb.Any {
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic("bootstrap: encode " + string(m.ProtoReflect().Descriptor().FullName()) + ": " + err.Error())
	}
	return a
}
