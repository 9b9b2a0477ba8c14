// gpu-plugin offers GPUs that do not exist: the kubelet's device plugin interface, with numbers for devices.
//
//	gpu-plugin COUNT DELAY
//
// It registers with the kubelet of the machine it runs on, DELAY after the kubelet first answers, as a driver does that
// needs a moment to load. A kubelet that restarts removes the plugin's socket; the plugin then registers again.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource = "nvidia.com/gpu"
	endpoint = "gpu.sock"
)

type gpus struct {
	api.UnimplementedDevicePluginServer
	count int
}

func (g gpus) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (g gpus) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	devices := make([]*api.Device, g.count)
	for i := range devices {
		devices[i] = &api.Device{ID: fmt.Sprintf("GPU-%d", i), Health: api.Healthy}
	}
	if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (g gpus) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		env := map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")}
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{Envs: env})
	}
	return response, nil
}

// serve offers the devices once and returns when the kubelet has gone, which it shows by emptying the socket folder.
func (g gpus) serve() error {
	socket := filepath.Join(api.DevicePluginPath, endpoint)
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	defer server.Stop()
	api.RegisterDevicePluginServer(server, g)
	go func() { _ = server.Serve(listener) }()
	if err := register(); err != nil {
		return err
	}
	log.Printf("registered %d x %s", g.count, resource)
	for exists(socket) {
		time.Sleep(500 * time.Millisecond)
	}
	return nil
}

func register() error {
	connection, err := grpc.NewClient("unix:"+api.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request := &api.RegisterRequest{Version: api.Version, Endpoint: endpoint, ResourceName: resource}
	_, err = api.NewRegistrationClient(connection).Register(ctx, request)
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatalf("usage: gpu-plugin COUNT DELAY, got %q", os.Args[1:])
	}
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatalf("COUNT %q is no number: %v", os.Args[1], err)
	}
	delay, err := time.ParseDuration(os.Args[2])
	if err != nil {
		log.Fatalf("DELAY %q is no duration such as 2s: %v", os.Args[2], err)
	}
	for !exists(api.KubeletSocket) {
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(delay)
	for {
		if err := (gpus{count: count}).serve(); err != nil {
			log.Printf("not registered: %v", err)
		}
		time.Sleep(500 * time.Millisecond)
	}
}
