// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/miekg/dns"

	"fairlead.io/fairlead/translators/objects"
)

// settle is how long a folder must be quiet before it is read again.
const settle = 10 * time.Millisecond

// Serve answers for a cluster folder on an address, over UDP and TCP, until the
// context ends. Changes of the folder are taken up at once.
func Serve(ctx context.Context, log *slog.Logger, addr, folder string) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", folder, err)
	}
	defer w.Close()
	if err := w.Add(folder); err != nil {
		return fmt.Errorf("watch %s: %w", folder, err)
	}
	var zone atomic.Pointer[Zone]
	read := func() { zone.Store(NewZone(objects.Files([]string{folder}, nil))) }
	read()

	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return fmt.Errorf("serve DNS: %w", err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		pc.Close()
		return fmt.Errorf("serve DNS: %w", err)
	}
	handler := dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		if err := rw.WriteMsg(reply(rw, zone.Load(), q)); err != nil {
			log.Debug("answer lost", "peer", rw.RemoteAddr().String(), "error", err)
		}
	})
	servers := []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}}
	ended := make(chan error, len(servers))
	var wg sync.WaitGroup
	for _, s := range servers {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		wg.Go(func() { ended <- s.ActivateAndServe() })
		<-ready // a server that has not started cannot be shut down
	}
	log.Info("serving names", "address", addr, "folder", folder)
	err = follow(ctx, log, w, ended, read)
	for _, s := range servers {
		_ = s.Shutdown() // it may have ended by itself, as err says
	}
	wg.Wait()
	return err
}

// follow reads the folder again after changes, until the context or a server ends.
func follow(ctx context.Context, log *slog.Logger, w *fsnotify.Watcher, ended <-chan error, read func()) error {
	var quiet <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return fmt.Errorf("serve DNS: %w", errors.Join(err, errors.New("the server ended")))
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("folder watch ended")
			}
			if filepath.Base(e.Name)[0] != '.' {
				quiet = time.After(settle)
			}
		case err := <-w.Errors:
			log.Warn("folder watch lost events", "error", err)
			quiet = time.After(settle)
		case <-quiet:
			quiet = nil
			read()
		}
	}
}

// reply is the zone's answer in the size that the client takes, with the
// addresses of a name in any order.
func reply(rw dns.ResponseWriter, z *Zone, q *dns.Msg) *dns.Msg {
	m := z.Answer(q)
	if len(m.Answer) > 0 && m.Answer[0].Header().Rrtype != dns.TypeCNAME { // an alias stands before what it leads to
		rand.Shuffle(len(m.Answer), func(i, j int) { m.Answer[i], m.Answer[j] = m.Answer[j], m.Answer[i] })
	}
	size := dns.MaxMsgSize
	if rw.RemoteAddr().Network() == "udp" {
		size = dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
			m.SetEdns0(opt.UDPSize(), false)
		}
	}
	m.Truncate(size)
	return m
}

// Main is the program: --listen ADDRESS:PORT --source FOLDER.
func Main(ctx context.Context, args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet("dns", flag.ContinueOnError)
	fs.SetOutput(stderr)
	listen := fs.String("listen", "127.0.0.1:53", "address and port")
	source := fs.String("source", "", "cluster folder")
	if err := fs.Parse(args); err != nil {
		return err
	}
	return Serve(ctx, slog.New(slog.NewTextHandler(stderr, nil)), *listen, *source)
}
