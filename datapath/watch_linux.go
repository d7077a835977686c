// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watcher hears of changed interfaces, addresses, routes and numbers of network namespaces.
type watcher struct {
	socket *nl.NetlinkSocket
	events chan struct{} // a value that nobody takes stands for all that followed
}

func newWatcher() (*watcher, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NSID)
	if err != nil {
		return nil, fmt.Errorf("watch interfaces and routes: %w", err)
	}
	return &watcher{socket: s, events: make(chan struct{}, 1)}, nil
}

// run listens until the context ends.
func (w *watcher) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, w.socket.Close)
	defer stop()
	for {
		_, _, err := w.socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("watch interfaces and routes: %w", err)
		}
		// ENOBUFS says that something was missed.
		select {
		case w.events <- struct{}{}:
		default:
		}
	}
}
