/* Answers every request on port 8080 with the file that it is given. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char request[4096], body[4096], head[128];
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(8080) };
	int on = 1, file, listener, client;
	ssize_t size;

	if (argc != 2 || (file = open(argv[1], O_RDONLY)) < 0 || (size = read(file, body, sizeof body)) < 0)
		return 1;
	signal(SIGTERM, _exit);
	signal(SIGPIPE, SIG_IGN);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 16))
		return 2;
	while ((client = accept(listener, NULL, NULL)) >= 0) {
		if (read(client, request, sizeof request) > 0) {
			int length = snprintf(head, sizeof head,
					      "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zd\r\n\r\n", size);
			if (write(client, head, length) != length || write(client, body, size) != size)
				perror("write");
		}
		close(client);
	}
	return 3;
}
