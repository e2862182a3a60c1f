/* Keeps servers on the loopback address.
 *
 * Storm's Thrift and worker ports listen on every interface, have no setting for it, and run any code
 * that is sent to them. Preloaded into Storm's processes, this turns "any address" into 127.0.0.1.
 * It includes no header, so that a bare compiler can build it.
 */
extern long syscall(long number, ...);

#if defined(__x86_64__)
#define NUMBER_OF_BIND 49
#elif defined(__aarch64__)
#define NUMBER_OF_BIND 200
#endif

#define FAMILY_IPV4 2
#define FAMILY_IPV6 10

int bind(int socket, const void *address, unsigned int length)
{
    unsigned char copy[28];
    const unsigned char *from = address;
    unsigned int index, zero = 1, first, last;
    unsigned int family = length >= 16 ? *(const unsigned short *)address : 0;

    if (family == FAMILY_IPV4) {
        first = 4;
        last = 8;
    } else if (family == FAMILY_IPV6 && length == 28) {
        first = 8;
        last = 24;
    } else {
        return (int)syscall(NUMBER_OF_BIND, socket, address, length);
    }
    for (index = 0; index < length && index < sizeof copy; index++)
        copy[index] = from[index];
    for (index = first; index < last; index++)
        if (copy[index])
            zero = 0;
    if (zero && family == FAMILY_IPV4)
        copy[4] = 127;
    if (zero)
        copy[last - 1] = 1;
    return (int)syscall(NUMBER_OF_BIND, socket, copy, length > sizeof copy ? sizeof copy : length);
}
